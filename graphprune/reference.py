"""The masked original: what the pruned model must equal, built from the files and the plan.

Removed entries that a consumer sums over become 0; all other removed entries keep the original's
values, which shows that nothing else of a removed channel reaches the output. Nothing here shares code
with surgery: indices come from the plan alone.

Where the plan says that the weights are the original's (``weights == "original"``), kept entries are the
*original's* too, so that a file in which surgery kept the wrong rows differs from the reference. Otherwise
(trained, compensated) kept entries are the pruned file's, scattered back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.cutting import Cut, checked_indices
from graphprune.errors import PlanError
from graphprune.folding import evaluate
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph, Node, Value, operator_name
from graphprune.mapped import array_of, copy_of
from graphprune.patterns import block_mask, nm_mask
from graphprune.plan import Plan
from graphprune.running import computed_constants, top_level_values
from graphprune.slabs import slabs
from graphprune.writeback import stored_tensors

_AFFINE = frozenset(
    {
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "com.microsoft::SimplifiedLayerNormalization",
        "com.microsoft::SkipLayerNormalization",
        "com.microsoft::SkipSimplifiedLayerNormalization",
    }
)
"""Operators whose further inputs broadcast against the first one from the right."""

_QUANTISED = frozenset(
    {
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT4,
        ir.DataType.UINT4,
        ir.DataType.INT2,
        ir.DataType.UINT2,
    }
)

_ZERO_POINTS = {
    "DequantizeLinear": (0, 2),
    "QLinearConv": (3, 5),
    "QLinearMatMul": (3, 5),
    "ConvInteger": (1, 3),
    "MatMulInteger": (1, 3),
    "com.microsoft::QGemm": (3, 5),
    "com.microsoft::MatMulIntegerToFloat": (1, 5),
    "com.microsoft::DynamicQuantizeMatMul": (1, 3),
}
"""Operator -> (input that is a quantised weight, input that holds its zero point)."""


def build_reference(
    original: ir.Model,
    pruned: ir.Model,
    plan: Plan,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    graph: Graph | None = None,
) -> ir.Model:
    """The original with ``plan``'s masks in place. Neither model is changed; weights are shared.

    ``graph`` is ``build_graph(original, input_shapes)`` where the caller has it already.

    Raises PlanError where the plan names what the models do not have.
    """
    graph = graph if graph is not None else build_graph(original, input_shapes)
    return _Builder(original, pruned, plan, graph).build()


class _Builder:
    def __init__(self, original: ir.Model, pruned: ir.Model, plan: Plan, graph: Graph) -> None:
        self.original, self.pruned, self.plan, self.graph = original, pruned, plan, graph
        self.model = original.clone()
        self.values = top_level_values(self.model.graph)
        self.pruned_values = top_level_values(pruned.graph)
        self.nodes = list(zip(self.model.graph, graph.nodes, strict=True))
        self.opset = graph.opset
        self.used: set[str] = set()
        self.faithful = plan.weights == "original"
        self.pruned_names: dict[str, list[str]] = {}
        for new, old in plan.renamed.items():
            self.pruned_names.setdefault(old, []).append(new)

    def build(self) -> ir.Model:
        for entry in self.plan.branches:
            self._mute(entry)
        if self.faithful and self.plan.structure in ("block", "nm"):
            self._zero_weights()
            return self.model  # channels that went besides must not have mattered: nothing stands for them
        self._private_copies()
        self._cut_tensors()
        if not self.faithful:
            self._changed_tensors()
        for name, axes in self.plan.kept_only.items():
            self._keep_only(name, {int(a): i for a, i in axes.items()})
        for name, axes in self.plan.gates.items():
            self._gate(name, {int(a): i for a, i in axes.items()})
        return self.model

    # -- stored tensors ---------------------------------------------------------------------------

    def _private_copies(self) -> None:
        """Some nodes of the pruned file read a copy of their own, cut otherwise, of a shared tensor."""
        for name, source in self.plan.renamed.items():
            if name in self.values or source not in self.values or name not in self.pruned_values:
                continue
            shared, new = self.values[source], self.pruned_values[name]
            tensor, stored = _stored(shared), _stored(new)
            if tensor is None:
                continue
            whole = stored is not None and tuple(stored.shape) == tuple(tensor.shape)
            if name not in self.plan.removed and not (whole and source in self.plan.removed):
                continue  # the same cut under another name
            readers = {(_name(n), i) for n, i in new.uses()}
            copy = self._initializer(name, tensor)
            for node, index in shared.uses():
                if (_name(node), index) in readers:
                    node.replace_input_with(index, copy)

    def _cut_tensors(self) -> None:
        names = list(self.plan.removed)
        missing = [n for n in names if n not in self.values]
        if missing:
            raise PlanError(f"the plan cuts {missing[0]!r}, which the original does not have: wrong model")
        nodes = [n for n in names if _stored(self.values[n]) is None]
        computed = computed_constants(self.model, nodes)
        new_names = [n for name in names if (n := self._pruned_name(name)) is not None]
        new_nodes = [n for n in new_names if _stored(self.pruned_values[n]) is None]
        pruned_computed = {} if self.faithful else computed_constants(self.pruned, new_nodes)
        for name in names:
            tensor = _stored(self.values[name])
            if tensor is None and name in computed:
                tensor = ir.Tensor(computed[name], name=name)
            replacement = self._pruned_tensor(name, pruned_computed)
            if tensor is None and (replacement is None or self._follows_sizes(name)):
                self._mask_computed(name)
            else:
                self._cut_tensor(name, self._from_analysis(name) if tensor is None else tensor, replacement)

    def _pruned_name(self, name: str) -> str | None:
        candidates = [name, *self.pruned_names.get(name, ())]
        return next((n for n in candidates if n in self.pruned_values), None)

    def _pruned_tensor(self, name: str, computed: Mapping[str, np.ndarray]) -> Any:
        new = self._pruned_name(name)
        if new is None:
            return None
        tensor = _stored(self.pruned_values[new])
        return ir.Tensor(computed[new]) if tensor is None and new in computed else tensor

    def _cut_tensor(self, name: str, tensor: Any, replacement: Any) -> None:
        cut = Cut.of(name, tensor.shape, self.plan.removed[name], self.plan.contracted.get(name, ()))
        if replacement is not None and tuple(replacement.shape) != cut.pruned_shape():
            raise PlanError(
                f"{name!r} has shape {tuple(replacement.shape)} in the pruned file, and the plan leaves "
                f"{cut.pruned_shape()}: the plan does not belong to this file"
            )
        if not self.faithful and self._pruned_name(name) is None:
            raise PlanError(f"the pruned file has no {name!r}, which the plan cuts: wrong file")
        fill = self._zero(name, len(cut.shape))

        def build() -> np.ndarray:
            array = copy_of(tensor)
            if replacement is not None and not self.faithful:
                new = array_of(replacement)
                for target, source in cut.selections() if cut.shape else ():
                    array[target] = new[source]
            cut.mask(array, fill)
            return array

        self._replace(name, tensor, self._zeroed(name, build))

    def _zero_weights(self) -> None:
        """The original's weights with zeros where the plan drops blocks, and the file drops weights of N:M."""
        found = stored_tensors(self.pruned, [n for n in self.plan.patterns if n in self.pruned_values])
        for name in self._patterned():
            tensor, new = _stored(self.values[name]) or self._from_analysis(name), found.get(name)
            if name in self.plan.patterns and (new is None or tuple(new.shape) != tuple(tensor.shape)):
                raise PlanError(f"the pruned file has no {name!r} of the original's shape: wrong file")
            build = partial(copy_of, tensor) if new is None else partial(_kept_of, tensor, new)
            self._replace(name, tensor, self._zeroed(name, build))

    def _patterned(self) -> list[str]:
        names = [*self.plan.blocks, *self.plan.patterns]
        for name in names:
            if name not in self.values:
                raise PlanError(f"the plan zeroes {name!r}, which the original does not have: wrong model")
        return names

    def _changed_tensors(self) -> None:
        """Weights that lost no position but may hold other numbers: trained, compensated, zeroed."""
        patterned = [n for n in self._patterned() if n not in self.plan.removed]
        names = [n for name in patterned if (n := self._pruned_name(name)) is not None]
        tables = [
            n for n in names if _stored(self.pruned_values[n]) is None
        ]  # rebuilt by the file's own nodes
        computed = {n: ir.Tensor(a) for n, a in computed_constants(self.pruned, tables).items()}
        for new in self.pruned_values:
            name = new if new in self.values else self.plan.renamed.get(new, new)
            if name in self.plan.removed or name not in self.values:
                continue
            old, tensor = _stored(self.values[name]), computed.get(new) or _stored(self.pruned_values[new])
            if old is None or tensor is None or tuple(old.shape) != tuple(tensor.shape):
                continue
            if old.dtype != tensor.dtype or not self._is_weight(name, old.dtype):
                continue
            self._replace(name, old, self._zeroed(name, partial(copy_of, tensor)))

    def _zeroed(self, name: str, build: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        """Blocks and N:M patterns: zeros wherever the plan says so, whatever the file holds there.

        ``build`` returns an array of its own.
        """
        blocks, pattern = self.plan.blocks.get(name), self.plan.patterns.get(name)

        def masked() -> np.ndarray:
            array = build()
            if blocks is not None:
                _clear(array, block_mask(name, array.shape, blocks))
            if pattern is not None:
                _clear(array, nm_mask(name, array, pattern))
            return array

        return masked if blocks or pattern else build

    def _is_weight(self, name: str, dtype: ir.DataType) -> bool:
        """Other integers are sizes, axes and indices: they belong to the pruned shapes."""
        if dtype == ir.DataType.INT32:  # the bias of a quantised layer
            users = [n.op_type for n in self.values[name].consumers()]
            return bool(users) and set(users) <= {"DequantizeLinear", "QLinearConv", "QGemm"}
        return dtype.is_floating_point() or dtype in _QUANTISED

    def _zero(self, name: str, rank: int) -> np.ndarray:
        """What stands for 0 in this tensor: a quantised weight's zero point, shaped to broadcast."""
        for node, index in self.values[name].uses():
            data, zero = _ZERO_POINTS.get(operator_name(node.domain, node.op_type), (-1, -1))
            if index != data or zero >= len(node.inputs):
                continue
            point = node.inputs[zero]
            tensor = None if point is None else _stored(point)
            if tensor is None:
                continue
            array = array_of(tensor)
            if array.size == 1:
                return array.reshape(())
            if array.ndim != 1:
                continue  # one per block of a row: such weights are never cut
            if node.op_type == "DequantizeLinear":
                axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
            else:
                turned = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
                axis = 0 if turned or node.op_type in ("QLinearConv", "ConvInteger") else -1
            return array.reshape([-1 if a == axis % rank else 1 for a in range(rank)])
        return np.zeros((), np.int8)

    def _mask_computed(self, name: str) -> None:
        """The original computes it from the input's sizes: let it, and zero what is contracted."""
        value = self.graph.values[name]
        cut = Cut.of(name, self._shape(value), self.plan.removed[name], self.plan.contracted.get(name, ()))
        if cut.contracted & set(cut.grouped):
            raise PlanError(f"the plan cuts {name!r} by groups, but the original computes it at run time")
        axes = {a: indices.tolist() for a, indices in cut.flat.items() if a in cut.contracted}
        if axes:
            self._gate(name, axes)

    def _follows_sizes(self, name: str) -> bool:
        """Whether a value that depends on the input's sizes may be another one at other sizes."""
        return not self.graph.values[name].constant or (bool(self.graph.open_axes) and self.faithful)

    def _from_analysis(self, name: str) -> Any:
        """It depends on the input's sizes, yet the pruned file stores it: take it for the analysed sizes."""
        value = self.graph.values[name]
        try:
            if value.known is not None or value.load is not None or value.producer is None:
                array = value.array()
            else:
                array = evaluate(value.producer, value.producer.outputs.index(value))
        except ValueError as error:
            raise PlanError(f"the plan cuts {name!r}, which is not a constant: wrong model") from error
        return ir.Tensor(np.asarray(array), name=name)

    def _initializer(self, name: str, tensor: Any) -> ir.Value:
        value = ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.model.graph.register_initializer(value)
        self.values[name] = value
        return value

    def _replace(self, name: str, tensor: Any, build: Callable[[], np.ndarray]) -> None:
        """Let ``name`` be what ``build`` returns. It is built when a session needs it, and not kept."""
        dtype = tensor.dtype
        lazy = ir.LazyTensor(
            lambda: ir.Tensor(build(), dtype=dtype), dtype=dtype, shape=ir.Shape(tensor.shape), name=name
        )
        value = self.values[name]
        node = value.producer()
        if node is None:
            value.const_value = lazy
            return
        value.name = f"{name}/computed"
        new = self._initializer(name, lazy)
        value.replace_all_uses_with(new, replace_graph_outputs=True)
        if len(node.outputs) == 1:
            self.model.graph.remove(node, safe=True)

    # -- activations ------------------------------------------------------------------------------

    def _gate(self, name: str, axes: Mapping[int, Sequence[int]]) -> None:
        """Multiply a value by a 0/1 mask along some axes, for everybody who reads it."""
        value, known = self.values.get(name), self.graph.values.get(name)
        if value is None or known is None:
            raise PlanError(f"the plan gates {name!r}, which the original does not have: wrong model")
        shape = self._shape(known)
        mask = np.ones([1] * len(shape), bool)
        for axis, removed in axes.items():
            if not 0 <= axis < len(shape):
                raise PlanError(
                    f"the plan gates axis {axis} of {name!r}, which has shape {shape}: wrong model"
                )
            line = np.ones(shape[axis], bool)
            line[checked_indices(name, removed, shape[axis])] = False
            mask = mask & line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        dtype = value.dtype or ir.DataType[_ONNX_NAMES.get(known.dtype, known.dtype.upper())]
        gate = self._constant(f"{name}/gate", mask.astype(dtype.numpy()), dtype)
        node = ir.Node("", "And" if dtype == ir.DataType.BOOL else "Mul", [value, gate])
        self._interpose(name, value, [node])

    def _mute(self, entry: Any) -> None:
        """Multiply an operand of a sum by 0, for this sum only."""
        told = entry if isinstance(entry, Mapping) else {}
        name, operand = str(told.get("value")), str(told.get("removed"))
        add = self.values[name].producer() if name in self.values else None
        known = self.graph.values.get(operand)
        inputs = [] if add is None else [None if v is None else v.name for v in add.inputs]
        if add is None or known is None or add.op_type not in ("Add", "Sum") or inputs.count(operand) != 1:
            raise PlanError(
                f"the plan takes {operand!r} out of the sum {name!r}, which the original does not have: wrong model"
            )
        value = self.values[operand]
        dtype = value.dtype or ir.DataType[_ONNX_NAMES.get(known.dtype, known.dtype.upper())]
        zero = self._constant(f"{operand}/zero", np.zeros((), dtype.numpy()), dtype)
        muted = ir.Node("", "Mul", [value, zero])
        muted.outputs[0].name = self._fresh(f"{operand}/muted")
        self.model.graph.insert_before(add, muted)
        add.replace_input_with(inputs.index(operand), muted.outputs[0])

    def _keep_only(self, name: str, axes: Mapping[int, Sequence[int]]) -> None:
        """Gather the kept positions -> the operator -> zeros at the removed ones."""
        matches = [(node, known) for node, known in self.nodes if known.name == name]
        if not matches:
            raise PlanError(f"the plan lists node {name!r}, which the original does not have: wrong model")
        for node, known in matches:
            first = known.input(0)
            if first is None or node.inputs[0] is None:
                raise PlanError(f"the plan lists node {name!r}, which has no first input: wrong model")
            self._keep_only_at(node, known, self._shape(first), axes)

    def _keep_only_at(
        self, node: ir.Node, known: Node, shape: tuple[int, ...], axes: Mapping[int, Sequence[int]]
    ) -> None:
        for axis, indices in axes.items():
            if not 0 <= axis < len(shape):
                raise PlanError(f"the plan lists axis {axis} of node {known.name!r}, which has {len(shape)}")
            removed = checked_indices(known.name, indices, shape[axis])
            kept = np.setdiff1d(np.arange(shape[axis]), removed)
            for position, value in enumerate(known.inputs):
                if value is None or (position and known.op not in _AFFINE):
                    continue
                own = axis - len(shape) + value.rank
                if value.shape is not None and own >= 0 and value.shape[own] == shape[axis]:
                    self._gather_input(node, position, own, kept)
            for out, source in zip(known.outputs, list(node.outputs), strict=True):
                used = source.uses() or source.is_graph_output()
                if used and out.rank == len(shape) and self._shape(out)[axis] == shape[axis]:
                    self._restore(source, out.name, out.rank, axis, kept, shape[axis])

    def _gather_input(self, node: ir.Node, position: int, axis: int, kept: np.ndarray) -> None:
        source = node.inputs[position]
        assert source is not None
        indices = self._constant(f"{source.name}/kept", kept, ir.DataType.INT64)
        gather = ir.Node("", "Gather", [source, indices], [ir.AttrInt64("axis", axis)])
        gather.outputs[0].name = self._fresh(f"{source.name}/kept_only")
        self.model.graph.insert_before(node, gather)
        node.replace_input_with(position, gather.outputs[0])

    def _restore(self, value: ir.Value, name: str, rank: int, axis: int, kept: np.ndarray, size: int) -> None:
        """Append one zero along the axis, then let removed positions read it. No arithmetic: any dtype."""
        where = np.full(size, kept.size, np.int64)
        where[kept] = np.arange(kept.size)
        pads = [0] * (2 * rank)
        pads[rank + axis] = 1
        public = self.values[name]  # what a first axis restored, where there are two
        if self.opset < 11:
            pad = ir.Node("", "Pad", [public], [ir.AttrInt64s("pads", pads)])
        else:
            amounts = self._constant(f"{name}/pads", np.array(pads, np.int64), ir.DataType.INT64)
            pad = ir.Node("", "Pad", [public, amounts])
        pad.outputs[0].name = self._fresh(f"{name}/padded")
        indices = self._constant(f"{name}/restore", where, ir.DataType.INT64)
        gather = ir.Node("", "Gather", [pad.outputs[0], indices], [ir.AttrInt64("axis", axis)])
        self._interpose(name, public, [pad, gather])
        # the operator's own output is narrower than the file says
        value.shape = public.shape = None

    def _interpose(self, name: str, value: ir.Value, chain: Sequence[ir.Node]) -> None:
        """Put ``chain`` between ``value`` and its readers; what comes out takes the name."""
        graph = self.model.graph
        out = chain[-1].outputs[0]
        out.type, out.shape = value.type, value.shape
        inner = set(chain)
        for node, index in value.uses():
            if node not in inner:
                node.replace_input_with(index, out)
        for position, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[position] = out
        producer = value.producer()
        if producer is not None:
            value.name = self._fresh(f"{name}/unmasked")
            out.name = name
            graph.insert_after(producer, chain)
        else:  # an input or initializer keeps its own name
            out.name = self._fresh(f"{name}/masked")
            graph.insert_before(graph[0], chain)
        self.values[name] = out

    def _shape(self, value: Value) -> tuple[int, ...]:
        if value.shape is None:
            raise PlanError(f"the shape of {value.name!r} is not known: give sizes with --input-shape")
        return value.shape

    def _constant(self, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
        name = self._fresh(name)
        return self._initializer(name, ir.Tensor(array, dtype=dtype, name=name))

    def _fresh(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self.values or candidate in self.used:
            candidate, count = f"{name}_{count}", count + 1
        self.used.add(candidate)
        return candidate


_SCALARS: dict[str, type[np.generic]] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}

_ONNX_NAMES = {"float32": "FLOAT", "float64": "DOUBLE"}


def _kept_of(old: Any, new: Any) -> np.ndarray:
    """The original's weights where the file's are not 0."""
    found, array = array_of(new), copy_of(old)
    for part in slabs(array.shape):
        np.copyto(array[part], found[part], where=found[part] == 0)
    return array


def _clear(array: np.ndarray, mask: np.ndarray) -> None:
    """Set to 0 where ``mask`` is False, in place."""
    for part in slabs(array.shape):
        array[part][~mask[part]] = 0


def _stored(value: ir.Value) -> Any:
    """The tensor of an initializer or of a Constant node; None for anything computed."""
    node = value.producer()
    if node is None:
        return value.const_value
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
        for key, attr in node.attributes.items():
            if key == "value":
                return attr.value
            if key in _SCALARS:
                return ir.Tensor(np.asarray(attr.value, _SCALARS[key]), name=value.name)
    return None


def _name(node: ir.Node) -> str:
    return node.name or next((o.name for o in node.outputs if o.name), "")
