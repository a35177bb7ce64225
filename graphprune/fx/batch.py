"""What depends on the batch size: constants compared across analyses, and sizes of fx nodes on meta tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import fx, nn

from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph, Value

ANALYSED = (2, 3, 5)
"""Batch sizes of the analyses of a file with a dynamic batch: two to fit ``a * B + b``, one to check it."""

MEASURED = (5, 7)
"""Batch sizes at which fx nodes are run on meta tensors; primes, so that few other sizes coincide."""

Linear = tuple[int, int]
"""``(a, b)``: a size or an element that is ``a * B + b`` at batch size B."""


@dataclass(frozen=True)
class Batch:
    """The batch axis of a model's inputs.

    ``axes``: input name -> its axis; the batch size is read from the first when the module runs. Empty for a
    model without a batch.
    ``fixed``: the size that the file declares, or None where it is dynamic.
    """

    axes: Mapping[str, int]
    fixed: int | None


class Analyses:
    """One model analysed at several batch sizes: which values are constant, and how the others vary."""

    def __init__(self, graphs: Sequence[Graph], sizes: Sequence[int]) -> None:
        self.graph = graphs[0]
        self._others = [g.values for g in graphs[1:]]
        self._sizes = sizes
        self._fixed = self._constants()

    def is_fixed(self, value: Value) -> bool:
        """Whether ``value`` is a constant that is the same at every batch size."""
        return value in self._fixed

    def linear(self, value: Value) -> tuple[np.ndarray, np.ndarray] | None:
        """``(a, b)``, integer arrays with the known ``value == a * B + b``; None where there are none."""
        arrays = self._known(value)
        if arrays is None or any(a.dtype.kind not in "iu" or a.shape != arrays[0].shape for a in arrays):
            return None
        if len(arrays) == 1:
            return np.zeros_like(arrays[0]), arrays[0]
        slope = (arrays[1] - arrays[0]) // (self._sizes[1] - self._sizes[0])
        offset = arrays[0] - slope * self._sizes[0]
        fits = (np.array_equal(slope * b + offset, a) for b, a in zip(self._sizes, arrays, strict=True))
        return (slope, offset) if all(fits) else None

    def _known(self, value: Value) -> list[np.ndarray] | None:
        arrays = [value.known]
        arrays += [v[value.name].known if value.name in v else None for v in self._others]
        found = [a for a in arrays if a is not None]
        return found if len(found) == len(arrays) else None

    def _constants(self) -> set[Value]:
        fixed = {v for v in self.graph.values.values() if v.stored}
        for node in self.graph.nodes:
            inputs = [v for v in node.inputs if v is not None]
            for out in node.outputs:
                if out.known is not None:
                    arrays = self._known(out)
                    same = arrays is not None and all(_same(arrays[0], a) for a in arrays[1:])
                else:
                    same = out.constant and bool(inputs) and all(v in fixed for v in inputs)
                if same:
                    fixed.add(out)
        return fixed


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


def analyse(
    model: ir.Model, input_shapes: Mapping[str, tuple[int, ...]] | None, *, measure: bool
) -> tuple[Analyses, Batch]:
    """Analyse ``model`` at several batch sizes where its batch axis is dynamic, else once.

    A model that cannot be run at other batch sizes, because its axis 0 is tied to another size, has no batch.
    """
    given = build_graph(model, input_shapes, measure=measure)
    shapes = {v.name: v.shape for v in given.inputs if v.shape is not None}
    axes = _dynamic_axes(model, shapes)
    if axes:
        graphs = []
        for size in ANALYSED:
            sized = {n: resized(s, axes.get(n), size) for n, s in shapes.items()}
            graphs.append(build_graph(model, sized, measure=measure))
        if _shapes_known(given) <= _shapes_known(graphs[0]):
            return Analyses(graphs, ANALYSED), Batch(axes, None)
        return Analyses([given], (1,)), Batch({}, None)
    leading = {n: s[0] for n, s in shapes.items() if s}
    fixed = next(iter(leading.values()), None)
    batch = Batch({n: 0 for n, size in leading.items() if size == fixed}, fixed)
    return Analyses([given], (fixed or 1,)), batch


def _dynamic_axes(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Inputs whose axis 0 is dynamic, and further axes of the same name; the first of them leads."""
    symbols = {
        v.name: [None if isinstance(d, int) and d > 0 else getattr(d, "value", None) or "" for d in v.shape]
        for v in model.graph.inputs
        if v.name in shapes and v.shape is not None and len(v.shape)
    }
    batch = next((dims[0] for dims in symbols.values() if dims[0] is not None), None)
    if batch is None:
        return {}
    axes = {}
    for name, dims in symbols.items():
        if dims[0] is not None and (dims[0] == batch or "" in (dims[0], batch)):
            axes[name] = 0
        elif batch and batch in dims:
            axes[name] = dims.index(batch)
    return {str(n): a for n, a in sorted(axes.items(), key=lambda entry: entry[1] != 0)}


def resized(shape: tuple[int, ...], axis: int | None, size: int) -> tuple[int, ...]:
    """``shape`` with ``size`` on ``axis``; as it is where ``axis`` is None."""
    return shape if axis is None else (*shape[:axis], size, *shape[axis + 1 :])


def _shapes_known(graph: Graph) -> set[str]:
    return {v.name for v in graph.values.values() if v.shape is not None}


class Follower:
    """Runs fx nodes on meta tensors at two batch sizes, as they are emitted, to learn their sizes.

    No operator needs a rule for this, and nothing is computed; what fails on meta tensors (sizes that
    depend on data) is unknown, and so is what follows from it.
    """

    def __init__(self, graph: fx.Graph, module: nn.Module, batch: Batch) -> None:
        self._graph = graph
        self._module = module
        self._batch = batch
        self._runs: list[dict[fx.Node, Any]] = [{} for _ in MEASURED]
        self._seen = 0

    def start(self, placeholder: fx.Node, value: Value, dtype: torch.dtype) -> None:
        """Announce the placeholder of an input."""
        if value.shape is None:
            return
        for run, size in zip(self._runs, MEASURED, strict=True):
            shape = resized(value.shape, self._batch.axes.get(value.name), size)
            run[placeholder] = torch.empty(shape, dtype=dtype, device="meta")

    def sizes(self, node: fx.Node) -> list[Linear] | None:
        """Each axis of ``node``'s tensor as ``(a, b)``; None where unknown."""
        self._catch_up()
        tensors = [run.get(node) for run in self._runs]
        if not all(isinstance(t, torch.Tensor) for t in tensors):
            return None
        first, second = (tuple(t.shape) for t in tensors if isinstance(t, torch.Tensor))
        if len(first) != len(second):
            return None
        low, high = MEASURED
        slopes = [(b - a) // (high - low) for a, b in zip(first, second, strict=True)]
        return [(slope, size - slope * low) for slope, size in zip(slopes, first, strict=True)]

    def _catch_up(self) -> None:
        for node in islice(self._graph.nodes, self._seen, None):
            self._seen += 1
            for run in self._runs:
                self._run(node, run)

    def _run(self, node: fx.Node, run: dict[fx.Node, Any]) -> None:
        if node.op == "get_attr":
            attribute = getattr(self._module, str(node.target))
            run[node] = attribute.to("meta") if isinstance(attribute, torch.Tensor) else attribute
        elif node.target is F.batch_norm and node.all_input_nodes[0] in run:
            run[node] = run[node.all_input_nodes[0]]  # torch decomposes it on meta tensors, in 3 ms
        elif node.op in ("call_function", "call_method") and all(n in run for n in node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, node.kwargs), run.__getitem__)
            try:
                if callable(node.target):
                    run[node] = node.target(*args, **kwargs)
                else:
                    run[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError):
                return


def free_axis(sizes: Sequence[Linear], target: Sequence[int], batch: int) -> tuple[int, int] | None:
    """Where a reshape to ``target`` puts the batch, and how many times over: ``(axis, multiple)``.

    ``sizes`` are the input's axes, one of which is the batch; ``target`` is the output's shape at a batch of
    ``batch``. The axis is one that has as many elements before it, and after it per sample, as the batch has
    in the input. None where there is none.
    """
    moving = [axis for axis, (slope, _) in enumerate(sizes) if slope]
    if len(moving) != 1 or sizes[moving[0]][1] != 0:
        return None
    source = moving[0]
    before = math.prod(size for _, size in sizes[:source])
    within = sizes[source][0] * math.prod(size for _, size in sizes[source + 1 :])
    fitting = [
        axis
        for axis, size in enumerate(target)
        if size % batch == 0
        and math.prod(target[:axis]) == before
        and size // batch * math.prod(target[axis + 1 :]) == within
    ]
    if not fitting:
        return None
    axis = source if source in fitting else fitting[0]
    return axis, target[axis] // batch
