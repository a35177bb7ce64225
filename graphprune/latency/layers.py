"""What onnxruntime's kernels spent, by the operators of the file they come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.graph import Graph, Node
from graphprune.latency.sessions import Kernel

_SUFFIXES = ("_nchwc",)
"""What onnxruntime's layout transformation puts behind the name of an operator's output."""


@dataclass
class LayerTime:
    """Of one operator of the first model: median seconds in every model, None where it does not run there.

    ``op`` is onnxruntime's: an activation or a sum may have been fused into it. Operators that onnxruntime adds
    (changes of layout) have names of its own.
    """

    name: str
    op: str
    seconds: list[float | None] = field(default_factory=list)


def attribute(kernels: Sequence[Kernel], graph: Graph) -> dict[str, tuple[str, float]]:
    """Operator of the graph -> onnxruntime's operator and median seconds, in the order they run.

    A fused kernel carries the name of what it computes last: it counts for the operator of its own kind that comes
    before. What belongs to no operator goes by its kind.
    """
    by_name = {n.name: n for n in graph.nodes if n.name}
    by_output = {v.name: n for n in graph.nodes for v in n.outputs}
    found: dict[str, tuple[str, float]] = {}
    for kernel in kernels:
        node = _node_of(kernel, by_name, by_output)
        name = f"({kernel.op})" if node is None else label(node)
        op, before = found.get(name, (kernel.op, 0.0))
        found[name] = (op, before + float(np.median(kernel.seconds)))
    return found


def label(node: Node) -> str:
    """The operator's name, or that of what it makes."""
    return node.name or (node.outputs[0].name if node.outputs else node.op)


def _node_of(kernel: Kernel, by_name: Mapping[str, Node], by_output: Mapping[str, Node]) -> Node | None:
    name = kernel.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    # fused kernels: "fused conv1", "matmul1/MatMulAddFusion"
    name = name.removeprefix("fused ")
    found = by_name.get(name) or by_output.get(name) or by_name.get(name.rpartition("/")[0].rstrip("/"))
    if found is None or kernel.op == found.op:
        return found
    seen, waiting = {found}, deque([found])
    while waiting and len(seen) < 64:
        node = waiting.popleft()
        if _same_kind(node.op, kernel.op):
            return node
        for value in node.inputs:
            producer = None if value is None else value.producer
            if producer is not None and producer not in seen:
                seen.add(producer)
                waiting.append(producer)
    return found


def _same_kind(op: str, kernel: str) -> bool:
    """``FusedConv`` is a Conv, ``Gemm`` may be a MatMul with its bias."""
    plain = op.rpartition("::")[2]
    return plain in (kernel, kernel.removeprefix("Fused")) or {plain, kernel} == {"MatMul", "Gemm"}


def side_by_side(
    models: Sequence[Mapping[str, tuple[str, float]]], renamed: Sequence[Mapping[str, str]]
) -> list[LayerTime]:
    """Operators of all models, those of the first one first. ``renamed``: of each model, its names -> the first's."""
    rows: dict[str, LayerTime] = {}
    for number, (layers, names) in enumerate(zip(models, renamed, strict=True)):
        for name, (op, seconds) in layers.items():
            row = rows.setdefault(names.get(name, name), LayerTime(names.get(name, name), op))
            row.seconds += [None] * (number - len(row.seconds))
            row.seconds.append(seconds)
    for row in rows.values():
        row.seconds += [None] * (len(models) - len(row.seconds))
    return list(rows.values())


def by_operator(rows: Sequence[LayerTime], models: int) -> list[LayerTime]:
    """The same, summed by onnxruntime's operator; most time in the first model first."""
    sums: dict[str, np.ndarray] = {}
    for row in rows:
        sums.setdefault(row.op, np.zeros(models))
        sums[row.op] += [s or 0.0 for s in row.seconds]
    ordered = sorted(sums.items(), key=lambda item: -float(item[1][0]))
    return [LayerTime(op, op, list(total.tolist())) for op, total in ordered]
