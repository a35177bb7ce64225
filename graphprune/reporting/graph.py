"""The coupling graph of a report: operators (of a very large model its groups) with their places and groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.graph import Node, Value
from graphprune.reporting.layout import layered

if TYPE_CHECKING:
    from graphprune.analysis import Analysis

MAX_OPERATORS = 2000
"""Beyond it the graph of groups is drawn: to move it takes a browser some 60 ms a frame at this size, on two cores."""


def graph_of(analysis: Analysis) -> dict[str, Any]:
    """``level`` operators or groups, ``nodes`` with ``at`` (layer, place), and ``edges`` with their routes.

    Nodes have ``index`` (of the operator in the model; -1 for inputs, outputs and groups), ``name``, ``op``,
    ``groups`` (of their outputs), ``reads`` (groups of their weights besides) and ``reason`` why their channels stay.
    """
    shown = [n for n in analysis.graph.nodes if not _is_constant(n)]
    if len(shown) > MAX_OPERATORS:
        return _of_groups(analysis)
    return _of_operators(analysis, shown)


def groups_of_value(analysis: Analysis, value: Value) -> list[int]:
    """Groups whose channels a value has, in order."""
    labels = analysis.coupling.labels.get(value)
    found: set[int] = set()
    for term in labels.terms if labels is not None else ():
        channels = np.unique(analysis.coupling.of(term))
        derived = channels[analysis.coupling.grids.derived[channels]]
        both = np.concatenate([channels, analysis.coupling.grids.parents[derived].reshape(-1)])
        found.update(int(g) for g in np.unique(analysis.groups.group_of[both]) if g >= 0)
    return sorted(found)


def _is_constant(node: Node) -> bool:
    return bool(node.outputs) and all(v.constant or v.stored for v in node.outputs)


def _of_operators(analysis: Analysis, shown: list[Node]) -> dict[str, Any]:
    graph = analysis.graph
    reads = _reads(analysis)
    reasons = analysis.frozen_reasons
    nodes = [_entry(v.name, "input", groups_of_value(analysis, v)) for v in graph.inputs]
    made: dict[Value, int] = {v: i for i, v in enumerate(graph.inputs)}
    edges: dict[tuple[int, int], None] = {}

    def connect(values: Iterable[Value | None], target: int) -> None:
        for value in values:
            if value is not None and value in made:
                edges[made[value], target] = None

    for node in shown:
        at = len(nodes)
        groups = sorted({g for v in node.outputs for g in groups_of_value(analysis, v)})
        also = sorted(reads.get(node, set()) - set(groups))
        nodes.append(_entry(node.name, node.op, groups, also, reasons.get(node, ""), node.index))
        connect((*node.inputs, *node.captured), at)
        made.update(dict.fromkeys(node.outputs, at))
    for value in graph.outputs:
        connect([value], len(nodes))
        nodes.append(_entry(value.name, "output", groups_of_value(analysis, value)))
    return _placed("operators", nodes, list(edges))


def _of_groups(analysis: Analysis) -> dict[str, Any]:
    nodes = [
        _entry(g.name, f"{g.channels.size} of {g.width}", [g.id], [], g.reason if not g.prunable else "")
        for g in analysis.groups
    ]
    edges = sorted({(min(a, b), max(a, b)) for a, b in analysis.groups.networkx.edges if a != b})
    return _placed("groups", nodes, edges)


def _placed(level: str, nodes: list[dict[str, Any]], edges: list[tuple[int, int]]) -> dict[str, Any]:
    places = layered(len(nodes), edges)
    for node, point in zip(nodes, places.points, strict=True):
        node["at"] = list(point)
    return {
        "level": level,
        "nodes": nodes,
        "edges": [
            [a, b, [list(p) for p in route]] for (a, b), route in zip(edges, places.routes, strict=True)
        ],
    }


def _entry(
    name: str, op: str, groups: list[int], reads: Sequence[int] = (), reason: str = "", index: int = -1
) -> dict[str, Any]:
    return {
        "name": name,
        "op": op,
        "groups": groups,
        "reads": list(reads),
        "reason": reason,
        "index": index,
    }


def _reads(analysis: Analysis) -> dict[Node, set[int]]:
    """Groups that stored tensors of a node have channels of: also those of its inputs."""
    holders = {v.name: v.consumers for v in analysis.graph.stored()}
    found: dict[Node, set[int]] = {}
    for group in analysis.groups:
        for member in group.members:
            for node in holders.get(member.tensor, ()):
                found.setdefault(node, set()).add(group.id)
    return found
