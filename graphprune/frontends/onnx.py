"""onnx_ir.Model -> Graph: concrete shapes for every value, small constants folded once.

Shapes come from the ONNX operators' own inference functions, one node at a time, fed with the folded
constants; what they cannot tell (custom operators, data-dependent sizes) is measured by one run of
onnxruntime. Dynamic axes get a size for the analysis only; the model keeps them dynamic.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.errors import ModelError, OptionError
from graphprune.folding import MAX_FOLDED_ELEMENTS, fold, may_be_large
from graphprune.frontends.opened import made_from_sizes, unlike
from graphprune.graph import Graph, Node, Value, operator_name
from graphprune.mapped import array_of
from graphprune.open_sizes import other_sizes

GUESSED_SPATIAL = 224
GUESSED_SEQUENCE = 16

LARGEST_TENSOR = 1 << 31
"""Elements. A few bytes of a damaged file can claim any size; tensors beyond this are refused before they are made."""

LARGEST_COMPUTED = 1 << 28
"""Elements. Larger constants that operators make out of smaller ones are left to the run time."""

Register = Callable[[ir.Value, np.ndarray], None]
Visit = Callable[[Node, ir.Node, Register], None]
"""Called with each node before it is read; ``Register`` announces a value the visitor has inserted."""


def dtype_name(dtype: ir.DataType | None) -> str:
    """numpy's name of an ONNX element type ("float32"), or "" where it is unknown."""
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return ""
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())


_ONNX_DTYPE = {dtype_name(d): int(d) for d in ir.DataType if d != ir.DataType.UNDEFINED}


def build_graph(
    model: ir.Model,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    visit: Visit | None = None,
    measure: bool = True,
    expected: Mapping[str, tuple[tuple[int, ...], str]] | None = None,
) -> Graph:
    """Turn ``model`` into a Graph.

    ``input_shapes`` gives sizes for inputs with dynamic axes; others are guessed and listed in
    ``Graph.guessed``. ``visit`` is called before each node is read and may edit the node in place
    (surgery uses it). ``measure`` allows one onnxruntime run for shapes that inference cannot find;
    ``expected`` (value name -> shape and dtype) tells them without a run.

    Raises OptionError for shapes that do not fit the model's inputs.
    """
    graph = _Builder(model, input_shapes or {}, visit, expected).build()
    unknown = [
        v
        for v in graph.values.values()
        if v.shape is None and v.producer is not None and (v.consumers or v.is_output)
    ]
    if unknown and measure:
        from graphprune.frontends.measuring import measure_shapes

        found = measure_shapes(model, graph, [v.name for v in unknown])
        if found:
            graph = _Builder(model, input_shapes or {}, visit, found).build()
    if visit is None and graph.open_axes and (nodes := made_from_sizes(graph)):
        at_other_sizes = _Builder(model, other_sizes(graph), None).values_of(nodes)
        for value in unlike(graph, at_other_sizes):
            value.constant = False
    return graph


class _Builder:
    def __init__(
        self,
        model: ir.Model,
        input_shapes: Mapping[str, tuple[int, ...]],
        visit: Visit | None,
        measured: Mapping[str, tuple[tuple[int, ...], str]] | None = None,
    ) -> None:
        self.model = model
        self.input_shapes = input_shapes
        self.visit = visit
        self.measured = measured or {}
        self.values: dict[ir.Value, Value] = {}
        self.by_name: dict[str, Value] = {}
        self.types: dict[str, onnx.TypeProto] = {}
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self.opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
        self.guessed: dict[str, tuple[int, ...]] = {}
        self.open_axes: dict[str, dict[int, str]] = {}

    def values_of(self, indices: Container[int]) -> dict[str, Value]:
        """Values by name where only the nodes with these numbers are read."""
        self._add_leaves()
        for index, node in enumerate(self.model.graph):
            if index in indices:
                self._add_node(index, node)
        return self.by_name

    def build(self) -> Graph:
        source = self.model.graph
        inputs = self._add_leaves()
        unknown = set(self.input_shapes) - {v.name for v in inputs}
        if unknown:
            raise OptionError(
                f"--input-shape names {sorted(unknown)[0]!r}, but the model's inputs are "
                + ", ".join(repr(v.name) for v in inputs)
            )
        nodes = [self._add_node(i, n) for i, n in enumerate(source)]
        outputs = []
        for output in source.outputs:
            if output not in self.values:
                raise ModelError(f"graph output {output.name!r} is produced by no node")
            value = self.values[output]
            value.is_output = True
            outputs.append(value)
        return Graph(nodes, self.by_name, inputs, outputs, self.opset, self.guessed, self.open_axes)

    # -- leaves ---------------------------------------------------------------------------------

    def _add_leaves(self) -> list[Value]:
        """Register initializers and inputs; returns the inputs."""
        for name, initializer in self.model.graph.initializers.items():
            self._add_initializer(name, initializer)
        return [self._add_input(v) for v in self.model.graph.inputs if v not in self.values]

    def _register(self, source: ir.Value, value: Value) -> Value:
        self.values[source] = value
        self.by_name[value.name] = value
        return value

    def _add_initializer(self, name: str, source: ir.Value) -> None:
        tensor = source.const_value
        if tensor is None:
            raise ModelError(f"initializer {name!r} has no data")
        self._register(source, _stored(Value(name), tensor))

    def _add_input(self, source: ir.Value) -> Value:
        value = Value(source.name or "", dtype=dtype_name(source.dtype))
        if source.shape is not None:
            value.shape = self._input_shape(source, value.name)
            _check_size(value)
        return self._register(source, value)

    def _input_shape(self, source: ir.Value, name: str) -> tuple[int, ...]:
        assert source.shape is not None
        dims = [d if isinstance(d, int) and d > 0 else None for d in source.shape]
        if None in dims:
            self.open_axes[name] = {
                axis: str(getattr(source.shape[axis], "value", None) or "")
                for axis, d in enumerate(dims)
                if d is None
            }
        given = self.input_shapes.get(name)
        if given is not None:
            if len(given) != len(dims):
                raise OptionError(
                    f"--input-shape {name} has {len(given)} sizes, the input has {len(dims)}: {source.shape}"
                )
            for axis, (want, fixed) in enumerate(zip(given, dims, strict=True)):
                if fixed is not None and want != fixed:
                    raise OptionError(f"--input-shape {name}: axis {axis} is fixed to {fixed}, not {want}")
            return tuple(given)
        if None not in dims:
            return tuple(d for d in dims if d is not None)
        shape = tuple(
            d if d is not None else self._guess(source, axis, len(dims)) for axis, d in enumerate(dims)
        )
        self.guessed[name] = shape
        return shape

    def _guess(self, source: ir.Value, axis: int, rank: int) -> int:
        if axis == 0:
            return 1
        if rank >= 3 and axis == 1 and (channels := self._conv_channels(source)):
            return channels
        if rank == 4 and axis == 1:
            return 3
        return GUESSED_SPATIAL if rank >= 4 else GUESSED_SEQUENCE

    @staticmethod
    def _conv_channels(source: ir.Value) -> int | None:
        """Channels that a convolution reading ``source`` expects."""
        for node in source.consumers():
            weight = node.inputs[1] if len(node.inputs) > 1 else None
            if node.op_type == "Conv" and weight is not None and weight.shape is not None:
                inner = weight.shape[1]
                group = node.attributes["group"].as_int() if "group" in node.attributes else 1
                return inner * group if isinstance(inner, int) else None
        return None

    # -- nodes ----------------------------------------------------------------------------------

    def _add_node(self, index: int, source: ir.Node) -> Node:
        node = self._convert(index, source)
        if self.visit is not None:
            self.visit(node, source, self._announce)
            node.inputs = [None if v is None else self._lookup(v) for v in source.inputs]
            node.attrs = _attributes(source)
        for value in {v for v in node.inputs if v is not None} | set(node.captured):
            value.consumers.append(node)
        if source.op_type == "Constant" and source.domain in ("", "ai.onnx"):
            self._constant_node(node, source)
        elif not self._folded(node, source):
            self._infer(node, source)
            self._computed_constant(node)
        for out, out_source in zip(node.outputs, source.outputs, strict=True):
            if out.shape is None:
                self._fallback_shape(out, out_source)
            _check_size(out)
        return node

    def _announce(self, source: ir.Value, array: np.ndarray) -> None:
        _known(self._register(source, Value(source.name or "")), array)

    def _lookup(self, source: ir.Value) -> Value:
        if source not in self.values:
            if source.const_value is not None:
                return self._register(source, _stored(Value(source.name or ""), source.const_value))
            raise ModelError(f"value {source.name!r} is read but never produced")
        return self.values[source]

    def _convert(self, index: int, source: ir.Node) -> Node:
        outputs = []
        for out in source.outputs:
            if out.name and out.name in self.by_name:
                raise ModelError(f"two tensors are named {out.name!r}: names must be unique")
            outputs.append(self._register(out, Value(out.name or "", dtype=dtype_name(out.dtype))))
        node = Node(
            index=index,
            op=operator_name(source.domain, source.op_type),
            name=source.name or next((o.name for o in source.outputs if o.name), f"node_{index}"),
            inputs=[None if v is None else self._lookup(v) for v in source.inputs],
            outputs=outputs,
            attrs=_attributes(source),
            opset=self.opset,
            captured=self._captured(source),
        )
        for value in outputs:
            value.producer = node
        return node

    def _captured(self, source: ir.Node) -> list[Value]:
        found: dict[Value, None] = {}
        stack = [a.value for a in source.attributes.values() if a.type == ir.AttributeType.GRAPH]
        stack += [g for a in source.attributes.values() if a.type == ir.AttributeType.GRAPHS for g in a.value]
        while stack:
            graph = stack.pop()
            for inner in graph:
                for value in inner.inputs:
                    if value in self.values:
                        found[self.values[value]] = None
                for attr in inner.attributes.values():
                    if attr.type == ir.AttributeType.GRAPH:
                        stack.append(attr.value)
                    elif attr.type == ir.AttributeType.GRAPHS:
                        stack.extend(attr.value)
            for value in graph.outputs:
                if value in self.values:
                    found[self.values[value]] = None
        return list(found)

    def _constant_node(self, node: Node, source: ir.Node) -> None:
        out = node.outputs[0]
        for name, attr in source.attributes.items():
            if name == "value":
                _stored(out, attr.value)
            elif name.startswith("value_"):
                array = np.asarray(attr.value)
                if array.dtype == np.float64:
                    array = array.astype(np.float32)
                _known(out, array)
                out.stored = True
            elif name == "sparse_value":
                raise ModelError(
                    f"Constant node {node.name!r} holds a sparse tensor: store it as a dense tensor first"
                )

    def _folded(self, node: Node, source: ir.Node) -> bool:
        if node.op in ("Shape", "Size"):
            measured = node.input(0)
            if measured is None or measured.shape is None:
                return False
            shape = np.array(measured.shape, np.int64)
            if node.op == "Size":
                _known(node.outputs[0], np.array(shape.prod(), np.int64))
            else:
                _known(node.outputs[0], shape[slice(node.attr("start", 0), node.attr("end"))])
            return True
        arrays: list[np.ndarray | None] = []
        for value in node.inputs:
            if value is not None and value.known is None:
                return False
            arrays.append(None if value is None else value.known)
        if not arrays or (may_be_large(node) and not self._small(node, source)):
            return False
        outputs = fold(node, arrays)
        if outputs is None:
            return False
        for out, array in zip(node.outputs, outputs, strict=True):
            _known(out, array)
        return True

    def _small(self, node: Node, source: ir.Node) -> bool:
        """Whether all results are known to be small before they are computed."""
        self._infer(node, source)
        return all(o.shape is not None and o.size <= MAX_FOLDED_ELEMENTS for o in node.outputs if o.name)

    def _infer(self, node: Node, source: ir.Node) -> None:
        if "::" in node.op or not onnx.defs.has(source.op_type, self.opset, ""):
            return
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for value in node.inputs:
            if value is None:
                continue
            types[value.name] = self._type(value)
            if value.known is not None and value.known.dtype.kind in "iufb":
                data[value.name] = onnx.numpy_helper.from_array(value.known, value.name)
        try:
            schema = onnx.defs.get_schema(source.op_type, self.opset, "")
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                _node_proto(source),
                types,
                data,
                opset_imports=self.opsets,
                ir_version=self.model.ir_version or 8,
            )
        except Exception:  # noqa: BLE001 - inference that fails leaves the shape unknown, which freezes
            return
        for out in node.outputs:
            proto = found.get(out.name)
            if proto is None or not proto.HasField("tensor_type"):
                continue
            tensor = proto.tensor_type
            if tensor.elem_type:
                out.dtype = dtype_name(ir.DataType(tensor.elem_type))
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
                out.shape = tuple(d.dim_value for d in tensor.shape.dim)

    def _type(self, value: Value) -> onnx.TypeProto:
        if value.name not in self.types or value.shape is None:
            self.types[value.name] = onnx.helper.make_tensor_type_proto(
                _ONNX_DTYPE.get(value.dtype, 0), value.shape
            )
        return self.types[value.name]

    @staticmethod
    def _computed_constant(node: Node) -> None:
        """A constant too big to fold now: a weight that some operators compute from stored ones."""
        inputs = [v for v in node.inputs if v is not None]
        if node.captured or not inputs or not all(v.constant for v in inputs):
            return
        if "::" in node.op or node.op.startswith(("Random", "Bernoulli", "Multinomial", "Sequence")):
            return
        for out in node.outputs:
            out.constant = out.size <= LARGEST_COMPUTED

    def _fallback_shape(self, out: Value, source: ir.Value) -> None:
        if out.name in self.measured:
            out.shape, dtype = self.measured[out.name]
            out.dtype = out.dtype or dtype
        elif not self.guessed and source.shape is not None and all(isinstance(d, int) for d in source.shape):
            out.shape = tuple(int(d) for d in source.shape if isinstance(d, int))


def _check_size(value: Value) -> None:
    if value.size > LARGEST_TENSOR:
        raise ModelError(
            f"tensor {value.name!r} would have the shape {list(value.shape or ())}, more than graphprune takes: "
            "the model is damaged, or needs other sizes (--input-shape)"
        )


def _stored(value: Value, tensor: Any) -> Value:
    value.shape = tuple(int(d) for d in tensor.shape)
    value.dtype = dtype_name(tensor.dtype)
    value.constant = value.stored = True
    value.load = partial(_read, value.name, tensor)
    if value.size <= MAX_FOLDED_ELEMENTS and tensor.dtype != ir.DataType.STRING:
        small = value.size <= 64 or value.dtype.startswith(("int64", "int32", "bool"))
        if small:
            value.known = value.load()
    return value


def _read(name: str, tensor: ir.TensorProtocol) -> np.ndarray:
    try:
        return array_of(tensor)
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(
            f"weight {name!r} cannot be read: its data does not fit its shape {list(tensor.shape)} and type; "
            "export or copy the model again"
        ) from error


def _known(value: Value, array: np.ndarray) -> None:
    value.known = array
    value.shape = tuple(array.shape)
    value.dtype = str(array.dtype)
    value.constant = True


def _attributes(source: ir.Node) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    for name, attr in source.attributes.items():
        if attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            continue
        if attr.type == ir.AttributeType.TENSOR:
            big = source.op_type == "Constant"
            attrs[name] = None if big else np.asarray(attr.value.numpy())
        elif isinstance(attr.value, tuple | list):
            attrs[name] = list(attr.value)
        else:
            attrs[name] = attr.value
    return attrs


def _node_proto(source: ir.Node) -> onnx.NodeProto:
    proto = ir.serde.serialize_node(source)
    return proto
