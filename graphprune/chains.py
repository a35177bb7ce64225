"""Chains of pure movement that keep channels on one axis (channel shuffle): written as one Gather."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune import labels as lab
from graphprune.coupler import Coupler, Rewrite
from graphprune.edits import Edit, Kept, ReplaceBySelection
from graphprune.graph import Graph, Node, Value
from graphprune.labels import Labels, TooManyLabels
from graphprune.resolution import Coupling
from graphprune.rules import find_rule


def _axes_varied(coupling: Coupling, x: Labels) -> int:
    """Most axes along which the coupled channels of one term differ (frozen ones count as equal)."""
    most = 0
    for term in x.terms:
        axes = x.axes_of(term)
        if len(axes) < 2:
            continue
        channels = coupling.of(term)
        parents = coupling.grids.parents[channels]
        derived = parents[..., 0] >= 0
        for side in (0, 1):
            found = np.where(derived, parents[..., side], channels)
            found = np.where(coupling.frozen[found], 0, found)
            varied = 0
            for axis in axes:
                first = found
                for d in x.dims(axis):
                    first = first.take([0], axis=d)
                varied += bool(np.any(found != first))
            most = max(most, varied)
    return most


def replace_chains(coupling: Coupling) -> frozenset[str]:
    """Handle values whose labels vary over two axes.

    A chain of pure movement that starts and ends with channels on one axis (channel shuffle) becomes
    one Gather. Any other such value is returned by name: the next run makes it vary along one axis.
    """
    ragged = {
        value
        for value, x in coupling.labels.items()
        if x is not None and len(x.terms) > 0 and _axes_varied(coupling, x) > 1
    }
    unsettled: set[str] = set()
    for nodes in _regions(coupling.graph, ragged):
        if not _replace_region(coupling, nodes, ragged):
            unsettled |= {o.name for node in nodes for o in node.outputs if o in ragged}
    return frozenset(unsettled)


def _regions(graph: Graph, ragged: set[Value]) -> list[list[Node]]:
    """Nodes that touch ragged values, in connected sets and graph order."""
    if not ragged:
        return []
    touching = [n for n in graph.nodes if any(v in ragged for v in (*n.inputs, *n.outputs))]
    parent = {n: n for n in touching}

    def root(n: Node) -> Node:
        while parent[n] is not n:
            n = parent[n]
        return n

    for value in ragged:
        members = [n for n in (value.producer, *value.consumers) if n in parent]
        for other in members[1:]:
            if other is not None and members[0] is not None:
                parent[root(other)] = root(members[0])
    regions: dict[Node, list[Node]] = {}
    for n in touching:
        regions.setdefault(root(n), []).append(n)
    return list(regions.values())


def _replace_region(coupling: Coupling, nodes: list[Node], ragged: set[Value]) -> bool:
    """Write a movement chain as selections from its one input; False where it is not one."""
    inside = set(nodes)
    entries = {
        v
        for n in nodes
        for v in n.inputs
        if v is not None and v not in ragged and not v.constant and v.producer not in inside
    }
    entries |= {
        v for n in nodes for v in n.inputs if v is not None and v.constant and _is_tracked(coupling, v)
    }
    if len(entries) != 1 or any(v.constant for v in entries):
        return False
    for node in nodes:
        rule = find_rule(node.op)
        if rule is None or (rule.family != "movement" and node.op != "Identity"):
            return False
    (source,) = entries
    x = coupling.labels[source]
    if x is None or len(x.terms) != 1 or len(x.tracked()) != 1:
        return False
    (axis,) = x.tracked()
    positions = _simulate(coupling.graph, nodes, source)
    exits = [(n, i) for n in nodes for i, o in enumerate(n.outputs) if o not in ragged and _leaves(o, inside)]
    if not exits:  # nobody reads what it makes, but it still runs
        return False
    selections = []
    for node, index in exits:
        y = positions.get(node.outputs[index])
        chosen = None if y is None else _as_selection(y, source.shape or (), axis)
        if chosen is None:
            return False
        selections.append((node, index, chosen))
    c = coupling.coupler
    ids = lab.vector(x, axis)
    assert ids is not None
    c.rewrites = [(n, r) for n, r in c.rewrites if n not in inside]
    for node, index, chosen in selections:
        c.on_prune(node, _selection_rewrite(source.name, index, axis, ids, chosen))
    return True


def _is_tracked(coupling: Coupling, value: Value) -> bool:
    x = coupling.labels.get(value)
    return x is not None and bool(x.terms)


def _leaves(value: Value, inside: set[Node]) -> bool:
    if value.known is not None:  # sizes: they may pass through other nodes as long as they end inside
        return value.is_output or any(
            n not in inside and any(o.known is None or _leaves(o, inside) for o in n.outputs)
            for n in value.consumers
        )
    return value.is_output or any(n not in inside for n in value.consumers)


def _simulate(graph: Graph, nodes: list[Node], source: Value) -> dict[Value, Labels]:
    """Follow the position of every index of ``source`` through the movement operators."""
    c = Coupler(graph)
    shape = source.shape or ()
    found: dict[Value, Labels] = {
        source: Labels.vectors(shape, {a: np.arange(s) for a, s in enumerate(shape)})
    }
    for node in nodes:
        rule = find_rule(node.op)
        assert rule is not None
        inputs: list[Labels | None] = []
        for v in node.inputs:
            constant = None if v is None else Labels.untracked(v.shape or ())
            inputs.append(None if v is None else found.get(v, constant))
        try:
            out = rule.function(c, node, *inputs)
        except (ValueError, TooManyLabels):
            return {}
        outputs = [out] if isinstance(out, Labels) else list(out)
        found.update(zip(node.outputs, outputs, strict=False))
    return found


def _as_selection(y: Labels, shape: Sequence[int], axis: int) -> np.ndarray | None:
    """The positions that ``y`` takes along ``axis``, None where anything else moves too."""
    if y.rank != len(shape):
        return None
    chosen: np.ndarray | None = None
    for a, size in enumerate(shape):
        terms = y.on(a)
        if any(len(y.axes_of(t)) > 1 for t in terms) or len(terms) > 1:
            return None
        ids = lab.vector(y, a)
        if a == axis:
            chosen = ids
        elif y.shape[a] != size or (ids is not None and not np.array_equal(ids, np.arange(size))):
            return None
    return chosen


def _selection_rewrite(source: str, output: int, axis: int, ids: np.ndarray, chosen: np.ndarray) -> Rewrite:
    def rewrite(kept: Kept) -> list[Edit]:
        mask = kept.mask(ids)
        if mask.all():
            return []
        position = np.cumsum(mask) - 1
        return [ReplaceBySelection(source, output, axis, position[chosen[mask[chosen]]])]

    return rewrite
