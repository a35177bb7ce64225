"""onnxruntime as the judge of a proof: runs that change no arithmetic.

Graph optimisations are off, so that two models differ by what was done to them and not by which of
their operators got fused. One session lives at a time; big models go through a temporary folder and
are mapped from there instead of being held several times. Weights that lie in a file already are mapped
from that file.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphprune.errors import ModelError, OptionError
from graphprune.mapped import array_of

Feed = dict[str, np.ndarray]
Results = dict[str, np.ndarray]

IN_MEMORY_BYTES = 48_000_000
"""Models with more weights than this are mapped from a temporary folder."""

EXTERNAL_FROM_BYTES = 256

THREADS = 2

_FOLDER_KEY = "session.model_external_initializers_file_folder_path"

# Initializers need not be graph inputs from version 4 on; 13 is the newest that onnxruntime reads.
_IR_VERSIONS = (4, 13)

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


# -- sessions -----------------------------------------------------------------------------------------


class Session:
    """One model in onnxruntime on the CPU; use it in a ``with`` statement.

    ``expose`` names inner values that are returned beside the model's outputs. ``cut`` turns inner
    values into inputs (name -> numpy dtype); what computed them no longer matters.

    Raises whatever onnxruntime raises, which has no common base: callers catch Exception.
    """

    def __init__(
        self, model: ir.Model, expose: Iterable[str] = (), cut: Mapping[str, np.dtype[Any]] | None = None
    ) -> None:
        self._model: ir.Model | None = runnable(model, expose, cut or {})
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._session: Any = None

    def __enter__(self) -> Self:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")  # it copies every weight
        try:
            source, folder = self._source()
            if folder is not None:
                options.add_session_config_entry(_FOLDER_KEY, folder)
            self._model = None  # the session has its own copy
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _source(self) -> tuple[bytes | str, str | None]:
        """The model or its path, and the folder of its weights where they can stay in the file that they are in."""
        assert self._model is not None
        stored = [v for g in _graphs(self._model.graph) for v in g.initializers.values()]
        sizes = [0 if v.const_value is None else v.const_value.nbytes for v in stored]
        in_memory = sum(sizes) <= IN_MEMORY_BYTES
        folder = None if in_memory else _folder_of([v.const_value for v in stored])
        for value, size in zip(stored, sizes, strict=True):
            tensor = value.const_value
            # ir.save would load the small ones too, but closes the file that the analysis still looks into
            if isinstance(tensor, ir.ExternalTensor) and (in_memory or size <= EXTERNAL_FROM_BYTES):
                value.const_value = ir.Tensor(array_of(tensor), dtype=tensor.dtype, name=tensor.name)
        if in_memory or folder is not None:
            return ir.to_proto(self._model).SerializeToString(), folder
        self._folder = tempfile.TemporaryDirectory(prefix="graphprune-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / "model.onnx"
        try:
            ir.save(self._model, path, external_data="model.data", size_threshold_bytes=EXTERNAL_FROM_BYTES)
        except OSError as error:
            raise OptionError(
                f"{tempfile.gettempdir()} has no room for the {sum(sizes) / 1e9:.1f} GB that the proof writes there "
                f"({error.strerror or error}): free some, or set TMPDIR to another folder"
            ) from error
        return str(path), None

    def _close(self) -> None:
        self._session = self._model = None
        if self._folder is not None:
            self._folder.cleanup()

    def run(self, feed: Feed) -> Results:
        """Every output that is a tensor. Sequences, optionals and sparse tensors are left out."""
        import onnxruntime as ort

        options = ort.RunOptions()
        options.log_severity_level = 4
        names = [o.name for o in self._session.get_outputs()]
        arrays = self._session.run(names, feed, options)
        return {n: a for n, a in zip(names, arrays, strict=True) if isinstance(a, np.ndarray)}


def _folder_of(tensors: Sequence[ir.TensorProtocol | None]) -> str | None:
    """The one folder that all large tensors lie in; None where some are in memory, or in another one."""
    external = [t for t in tensors if isinstance(t, ir.ExternalTensor)]
    folders = {os.path.abspath(t.base_dir) for t in external if t.base_dir and t.valid()}
    held = sum(t.nbytes for t in tensors if t is not None and not isinstance(t, ir.ExternalTensor))
    return folders.pop() if len(folders) == 1 and held <= IN_MEMORY_BYTES else None


def first_line(error: BaseException) -> str:
    """onnxruntime's messages without their prefix, C++ location and stack."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text[:300].rstrip(" .")


def runnable(
    model: ir.Model, expose: Iterable[str] = (), cut: Mapping[str, np.dtype[Any]] | None = None
) -> ir.Model:
    """A copy (sharing the weights) that onnxruntime runs reproducibly; see Session for the arguments."""
    model = model.clone()
    graph = model.graph
    model.ir_version = min(max(model.ir_version, _IR_VERSIONS[0]), _IR_VERSIONS[1])
    _widen_bfloat16(graph)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type in _RANDOM and "seed" not in node.attributes:
            # without it the numbers depend on the node's position in the file
            name = node.outputs[0].name or ""
            node.attributes["seed"] = ir.AttrFloat32("seed", float(zlib.crc32(name.encode()) % 10_000))
    # an initializer that could be overridden is not constant to onnxruntime's kernels
    graph.inputs[:] = [v for v in graph.inputs if v.name not in graph.initializers]

    values = top_level_values(graph)
    outputs = {v.name: v for v in graph.outputs if v.type is None or isinstance(v.type, ir.TensorType)}
    outputs.update({n: values[n] for n in expose if n in values})
    for name, dtype in (cut or {}).items():
        new = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(dtype)))
        old = values[name]
        old.name = f"{name}/computed"
        for user, index in old.uses():
            user.replace_input_with(index, new)
        graph.inputs.append(new)
        outputs.pop(name, None)
    graph.outputs[:] = list(outputs.values())
    return model


def top_level_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Inputs, initializers and node outputs by name, without those of sub-graphs."""
    values = {v.name: v for v in graph.inputs if v.name}
    values.update(graph.initializers)
    values.update({v.name: v for node in graph for v in node.outputs if v.name})
    return values


def _graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    yield graph
    yield from graph.subgraphs()


def _widen_bfloat16(graph: ir.Graph) -> None:
    """Compute in float32 instead: onnxruntime's CPU kernels have no bfloat16, and widening is exact."""
    half, single = ir.DataType.BFLOAT16, ir.DataType.FLOAT

    def widened(tensor: Any) -> ir.LazyTensor:
        return ir.LazyTensor(
            lambda: ir.Tensor(array_of(tensor).astype(np.float32)),
            dtype=single,
            shape=ir.Shape(tensor.shape),
            name=tensor.name,
        )

    for inner in _graphs(graph):
        for value in (*inner.inputs, *inner.initializers.values(), *(v for n in inner for v in n.outputs)):
            if value.dtype == half:
                value.type = ir.TensorType(single)
            if value.const_value is not None and value.const_value.dtype == half:
                value.const_value = widened(value.const_value)
        for node in inner:
            for name, attr in list(node.attributes.items()):
                if attr.type == ir.AttributeType.TENSOR and attr.value.dtype == half:
                    node.attributes[name] = ir.AttrTensor(name, widened(attr.value))
                elif name in ("to", "dtype", "output_dtype") and attr.value == int(half):
                    node.attributes[name] = ir.AttrInt64(name, int(single))


# -- constants that a model computes ------------------------------------------------------------------


def computed_constants(model: ir.Model, names: Iterable[str]) -> Results:
    """Values of the named node outputs; those that depend on a model input are left out."""
    model = model.clone()
    graph = model.graph
    values = top_level_values(graph)
    needed: set[ir.Node] = set()
    wanted: dict[str, ir.Value] = {}
    for name in names:
        nodes = _computed_by(graph, values[name]) if name in values else None
        if nodes:
            needed |= nodes
            wanted[name] = values[name]
    if not wanted:
        return {}
    graph.remove([node for node in graph if node not in needed])
    read = {v for node in needed for v in reads(node)}
    for name in [n for n, v in graph.initializers.items() if v not in read]:
        del graph.initializers[name]
    graph.inputs[:] = []
    graph.outputs[:] = list(wanted.values())
    dtypes = {name: v.dtype for name, v in wanted.items()}
    try:
        with Session(model) as session:
            found = session.run({})
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(
            f"onnxruntime cannot compute the constant {next(iter(wanted))!r}: {first_line(error)}; "
            "fold the model's constants first"
        ) from error
    return {
        n: a.astype(ml_dtypes.bfloat16) if dtypes[n] == ir.DataType.BFLOAT16 else a for n, a in found.items()
    }


def _computed_by(graph: ir.Graph, value: ir.Value) -> set[ir.Node] | None:
    """The nodes that ``value`` is made by, or None where it depends on a model input."""
    inputs = {v for v in graph.inputs if v.name not in graph.initializers}
    found: set[ir.Node] = set()
    stack = [value]
    while stack:
        value = stack.pop()
        if value in inputs:
            return None
        node = value.producer()
        if node is not None and node not in found:
            found.add(node)
            stack.extend(reads(node))
    return found


def reads(node: ir.Node) -> list[ir.Value]:
    """The node's inputs, and the values of the enclosing graph that its sub-graphs read."""
    found = [v for v in node.inputs if v is not None]
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH:
            inner = [attr.as_graph()]
        elif attr.type == ir.AttributeType.GRAPHS:
            inner = list(attr.as_graphs())
        else:
            continue
        for graph in inner:
            local = (
                {v for n in graph for v in n.outputs} | set(graph.inputs) | set(graph.initializers.values())
            )
            used = [v for n in graph for v in reads(n)] + list(graph.outputs)
            found.extend(v for v in used if v not in local)
    return found
