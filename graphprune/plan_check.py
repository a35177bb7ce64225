"""Whether the model has what a plan names: tensors, values, nodes, axes and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphprune.errors import PlanError
from graphprune.graph import Graph
from graphprune.plan import Indices, Plan

_Shape = tuple[int, ...] | None


def check_plan(plan: Plan, graph: Graph) -> None:
    """Raises PlanError, naming it, for the first thing in ``plan`` that ``graph``, the original's, does not have."""
    shapes: dict[str, _Shape] = {name: value.shape for name, value in graph.values.items()}
    for name, axes in plan.removed.items():
        source = (
            name if name in shapes else plan.renamed.get(name, name)
        )  # a copy that only the pruned file has
        _check_axes("cuts", name, _known("cuts", source, shapes), axes)
    for name, numbers in plan.contracted.items():
        if not {str(a) for a in numbers} <= set(plan.removed.get(name, ())):
            raise PlanError(
                f"the plan sums over axes of {name!r} along which it removes nothing: it was changed"
            )
    for name, gated in plan.gates.items():
        _check_axes("gates", name, _known("gates", name, shapes), gated)
    for field in ("blocks", "patterns"):
        for name in getattr(plan, field):
            _known("zeroes", name, shapes)
    firsts = {node.name: node.input(0) for node in graph.nodes}
    for name, listed in plan.kept_only.items():
        first = firsts.get(name)
        if first is None:
            raise PlanError(f"the plan lists node {name!r}, which the original does not have: wrong model")
        _check_axes("lists", name, first.shape, listed)


def _known(does: str, name: str, shapes: Mapping[str, _Shape]) -> _Shape:
    if name not in shapes:
        raise PlanError(f"the plan {does} {name!r}, which the original does not have: wrong model")
    return shapes[name]


def _check_axes(does: str, name: str, shape: _Shape, axes: Mapping[str, Any]) -> None:
    if shape is None:
        return
    for text, indices in axes.items():
        axis = int(text)
        if axis >= len(shape):
            raise PlanError(f"the plan {does} axis {axis} of {name!r}, which has shape {shape}: wrong model")
        most = _largest(indices)
        if most >= shape[axis]:
            raise PlanError(
                f"the plan {does} position {most} of {name!r}, which has {shape[axis]} along axis {axis}: wrong model"
            )


def _largest(indices: Indices | Sequence[int]) -> int:
    return max((max(i, default=-1) if isinstance(i, list) else i for i in indices), default=-1)
