"""What every layer has before and after: channels, parameters, MACs, shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.cost import first_reader
from graphprune.graph import Node
from graphprune.layouts import BlockLayout, Layout, written_layouts
from graphprune.plan import Indices, Plan
from graphprune.reporting.graph import groups_of_value

if TYPE_CHECKING:
    from graphprune.analysis import Analysis

Pair = list[int]
"""Before and after."""


def layers_of(analysis: Analysis, plan: Plan | None, alive: np.ndarray) -> list[dict[str, Any]]:
    """One entry for each operator, Constant aside; ``channels`` is None where it makes none.

    ``alive``: bool ``[components]``, what ``plan`` leaves.
    Parameters after count those that are not zero, as the plan does. Raises PlanError where the plan does not fit.
    """
    kept = analysis.coupling.kept(alive)
    gone = _gone(analysis, plan)
    params = analysis.cost.params_by_node(analysis.everything), analysis.cost.params_by_node(alive)
    macs = analysis.cost.macs_by_node(analysis.everything), analysis.cost.macs_by_node(alive)
    zeros = {} if plan is None else _zeros(analysis, plan)
    channels = _channels(analysis, alive)
    reasons = analysis.frozen_reasons
    rows = []
    for node in analysis.graph.nodes:
        if node.op == "Constant":
            continue
        value = node.outputs[0] if node.outputs else None
        labels = None if value is None else analysis.coupling.labels.get(value)
        shape = list(value.shape or ()) if value is not None else []
        pair: Pair | None = channels.get(node)
        stays = node not in gone
        rows.append(
            {
                "index": node.index,
                "name": node.name,
                "op": node.op,
                "shape": shape,
                "shape_after": (shape if labels is None else list(kept.shape(labels))) if stays else None,
                "channels": pair if stays or pair is None else [pair[0], 0],
                "params": _pair(params, node, zeros.get(node, 0) if stays else math.inf),
                "macs": _pair(macs, node, 0 if stays else math.inf),
                "groups": [] if value is None else groups_of_value(analysis, value),
                "reason": reasons.get(node, ""),
            }
        )
    return rows


def _pair(counts: Sequence[dict[Node, int]], node: Node, less: float) -> Pair:
    before, after = (int(c.get(node, 0)) for c in counts)
    return [before, int(max(after - less, 0))]


def _channels(analysis: Analysis, alive: np.ndarray) -> dict[Node, Pair]:
    """Output channels of the operators that make them."""
    found: dict[Node, Pair] = {}
    seen: set[tuple[Node, bytes]] = set()
    for ids, node in analysis.coupling.coupler.born:
        key = (node, ids.tobytes())
        if key not in seen:
            seen.add(key)
            pair = found.setdefault(node, [0, 0])
            pair[0] += int(ids.size)
            pair[1] += int(np.count_nonzero(alive[analysis.coupling.of(ids)]))
    return found


def _zeros(analysis: Analysis, plan: Plan) -> dict[Node, int]:
    """Zeroed weights of every operator, those that were removed aside."""
    values = analysis.graph.values
    shapes = {n: values[n].shape or () for n in (*plan.blocks, *plan.patterns) if n in values}
    found: dict[Node, int] = {}
    for name, layout in written_layouts(plan, shapes).items():
        zeros = _zeros_in(layout, plan.removed.get(name, {}))
        node = first_reader(values[name])
        if node is not None:
            found[node] = found.get(node, 0) + zeros
    return found


def _zeros_in(layout: Layout, removed: dict[str, Indices]) -> int:
    if isinstance(layout, BlockLayout):
        sizes: np.ndarray = np.ones((), np.int64)
        for length, block, blocks in zip(layout.shape, layout.block, layout.kept.shape, strict=True):
            along = np.minimum(block, length - np.arange(blocks) * block)
            sizes = np.multiply.outer(sizes, along)
        return int(sizes[~layout.kept].sum())
    shape = list(layout.shape)
    for axis, indices in removed.items():
        shape[int(axis)] -= sum(len(i) if isinstance(i, list) else 1 for i in indices)
    whole, rest = divmod(shape[layout.axis], layout.of)
    kept = whole * layout.keep + min(rest, layout.keep)
    others = math.prod(shape) // max(shape[layout.axis], 1)
    return others * (shape[layout.axis] - kept)


def _gone(analysis: Analysis, plan: Plan | None) -> set[Node]:
    """Operators that no output needs any more once the plan's branches are 0."""
    if plan is None or not plan.branches:
        return set()
    cut = {(entry["node"], entry["removed"]) for entry in plan.branches}
    return _needed(analysis, set()) - _needed(analysis, cut)


def _needed(analysis: Analysis, cut: set[tuple[str, str]]) -> set[Node]:
    """Operators that outputs need; ``cut``: operands (node, value) that are not read."""
    needed: set[Node] = set()
    stack = [v.producer for v in analysis.graph.outputs]
    while stack:
        node = stack.pop()
        if node is not None and node not in needed:
            needed.add(node)
            operands = (*node.inputs, *node.captured)
            stack.extend(v.producer for v in operands if v is not None and (node.name, v.name) not in cut)
    return needed
