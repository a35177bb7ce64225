"""Run the rules over a graph and resolve ties: which positions go together, which stay, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune import labels as lab
from graphprune.coupler import Coupler, Frozen
from graphprune.edits import Edit, Kept, ReplaceBySelection
from graphprune.folding import evaluate
from graphprune.graph import Graph, Node, Value
from graphprune.grids import Grids, further_ties, parents_of
from graphprune.labels import Labels, TooManyLabels
from graphprune.reasons import Reason
from graphprune.rules import find_rule

MAX_RUNS = 12


@dataclass(eq=False)
class Coupling:
    """The result: labels of every value, and the coupled channel of every label.

    ``component`` ``[labels]`` maps a label to its coupled channel; component 0 holds label 0.
    ``frozen`` ``[components]`` tells which stay, ``why`` the first reason of each.
    """

    graph: Graph
    coupler: Coupler
    component: np.ndarray
    count: int
    frozen: np.ndarray
    why: dict[int, Frozen]
    born: np.ndarray
    """bool ``[components]``: holds an output channel of some operator."""
    grids: Grids

    def __post_init__(self) -> None:
        self.labels: dict[Value, Labels | None] = self.coupler.labels

    @cached_property
    def removable(self) -> np.ndarray:
        """bool ``[components]``: can go, by itself or with a head or width it depends on."""
        derived = self.grids.derived
        free = ~self.frozen
        free[derived] = ~self.frozen[self.grids.parents[derived]].all(axis=1)
        return free

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Coupled channels of an array of labels."""
        found: np.ndarray = self.component[ids]
        return found

    def kept(self, alive: np.ndarray) -> Kept:
        """View of a decision ``alive`` (bool ``[components]``) for rewrites."""
        return Kept(alive[self.component])


def couple(graph: Graph, *, keep_axis: str = "heads", allow_inexact: bool = False) -> Coupling:
    """Find the coupled channels of ``graph``.

    ``keep_axis`` decides what goes where labels vary over two axes (attention): whole ``heads``,
    ``width`` positions of every head, or ``both``. ``allow_inexact`` lifts the freeze of groups that cross a
    normalisation over channels.
    """
    settled: frozenset[str] = frozenset()
    for _ in range(MAX_RUNS):
        coupler = _run(graph, keep_axis, settled)
        coupling = _resolve(graph, coupler, allow_inexact)
        unsettled = _selections(coupling)
        if not unsettled:
            return coupling
        settled |= unsettled
    raise AssertionError("label choices did not settle")


# -- one run --------------------------------------------------------------------------------------


def _run(graph: Graph, keep_axis: str, settled: frozenset[str]) -> Coupler:
    c = Coupler(graph, keep_axis, settled)
    for value in graph.inputs:
        c.labels[value] = None if value.shape is None else Labels.untracked(value.shape)
    for value in graph.values.values():
        if value.stored and value.shape is not None:
            c.labels[value] = _constant_labels(c, value)
    for node in graph.nodes:
        if node.op == "Constant":
            continue
        for value, found in zip(node.outputs, _node_labels(c, node), strict=True):
            if found is not None and value.name in settled:
                found = c.settle(found, node)
            c.labels[value] = found
    for value in graph.outputs:
        labels = c.labels.get(value)
        c.freeze_all(labels, Reason.OUTPUT, value.producer)
    return c


def _constant_labels(c: Coupler, value: Value) -> Labels:
    if value.dtype in ("int64", "bool", "string") or value.size <= 1:
        return Labels.untracked(value.shape or ())
    return c.stored(value)


def _node_labels(c: Coupler, node: Node) -> Sequence[Labels | None]:
    for value in node.captured:
        c.freeze_all(c.labels.get(value), Reason.CONTROL_FLOW, node)
    rule = find_rule(node.op)
    if node.outputs and all(o.constant for o in node.outputs):
        if all(o.known is not None and o.known.dtype.kind in "iub" for o in node.outputs):
            return [Labels.untracked(o.shape or ()) for o in node.outputs]
        if rule is None or not rule.weights or not _labelled_inputs(c, node):
            promoted = [_promote(c, node, i) for i in range(len(node.outputs))]
            if node.op != "ConstantOfShape":  # whose rule rewrites its shape rather than store it
                return promoted
    inputs = [None if v is None else c.labels.get(v) for v in node.inputs]
    reason = _unreadable(node, inputs, rule is None)
    if reason is not None or rule is None:
        return _frozen(c, node, inputs, reason or Reason.UNKNOWN_OPERATOR)
    if rule.settle:
        inputs = [None if x is None else c.settle(x, node) for x in inputs]
    try:
        found = rule.function(c, node, *inputs)
    except TooManyLabels:
        return _frozen(c, node, inputs, Reason.TOO_LARGE)
    except (ValueError, IndexError, TypeError):
        # two labels on one merged axis, or a form of the operator the rule does not read
        return _frozen(c, node, inputs, Reason.REARRANGED)
    outputs = [found] if isinstance(found, Labels) else list(found)
    return [_checked(c, node, x, o) for x, o in zip(outputs, node.outputs, strict=False)]


def _labelled_inputs(c: Coupler, node: Node) -> bool:
    found = (c.labels.get(v) for v in node.inputs if v is not None)
    return any(x is not None and x.terms for x in found)


def _unreadable(node: Node, inputs: Sequence[Labels | None], unknown: bool) -> Reason | None:
    if unknown:
        return Reason.CONTROL_FLOW if node.captured else Reason.UNKNOWN_OPERATOR
    missing = any(v is not None and x is None for v, x in zip(node.inputs, inputs, strict=True))
    used = (o for o in node.outputs if o.consumers or o.is_output or o is node.outputs[0])
    if missing or any(o.shape is None or 0 in o.shape for o in used):
        return Reason.UNKNOWN_SHAPE
    return None


def _frozen(c: Coupler, node: Node, inputs: Iterable[Labels | None], reason: Reason) -> list[Labels | None]:
    for x in inputs:
        c.freeze_all(x, reason, node)
    return [None if o.shape is None else Labels.untracked(o.shape) for o in node.outputs]


def _promote(c: Coupler, node: Node, index: int) -> Labels | None:
    """A constant that operators compute becomes a stored tensor, read only if it is sliced."""
    value = node.outputs[index]
    if value.shape is None:
        return None
    value.stored = True
    if value.known is None and value.load is None:
        value.load = lambda: evaluate(node, index)
    return _constant_labels(c, value)


def _checked(c: Coupler, node: Node, x: Labels, out: Value) -> Labels | None:
    """A rule's answer, refused where it contradicts the tensor's shape."""
    if out.shape is not None and x.shape != out.shape:
        if out.consumers or out.is_output:
            c.freeze_all(x, Reason.REARRANGED, node)
            for value in node.inputs:
                c.freeze_all(c.labels.get(value) if value is not None else None, Reason.REARRANGED, node)
        return Labels.untracked(out.shape)
    single = [t for t in x.terms if t.size == 1]
    for term in single:
        c.freeze(term, Reason.SINGLE_POSITION, node)
    return x.without(single) if single else x


# -- resolving ------------------------------------------------------------------------------------


def _resolve(graph: Graph, c: Coupler, allow_inexact: bool) -> Coupling:
    left = [p[0] for p in c.pairs]
    right = [p[1] for p in c.pairs]
    while True:
        count, component = _components(c.count, left, right)
        more_left, more_right = further_ties(c.products, component)
        if not more_left.size:
            break
        left.append(more_left)
        right.append(more_right)
    grids = Grids(parents_of(c.products, component, count))
    born = np.zeros(count, bool)
    for ids, _ in c.born:
        born[component[ids]] = True
    born[grids.parents[grids.derived & born].reshape(-1)] = True
    frozen = ~born
    frozen[0] = True
    why: dict[int, Frozen] = {}
    for event in c.frozen:
        if event.exact_only and allow_inexact:
            continue
        hit = grids.deciders(np.unique(component[event.ids]))
        frozen[hit] = True
        for channel in hit.tolist():
            why.setdefault(channel, event)
    for b in c.balances:  # equal counts over the elements of a grid: neither of its axes may lose any
        balanced = component[b.ids.reshape(-1)]
        frozen[grids.parents[balanced[grids.derived[balanced]]].reshape(-1)] = True
    stuck = np.flatnonzero(grids.derived & (component[0] == np.arange(count)))
    frozen[grids.parents[stuck].reshape(-1)] = True
    frozen[grids.derived] = True  # never decided by themselves
    return Coupling(graph, c, component, count, frozen, why, born, grids)


def _components(size: int, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> tuple[int, np.ndarray]:
    """Connected components of the ties; label 0 is in component 0."""
    rows = np.concatenate([np.zeros(0, np.int64), *left])
    columns = np.concatenate([np.zeros(0, np.int64), *right])
    links = coo_array((np.ones(rows.size, np.int8), (rows, columns)), shape=(size, size))
    count, component = connected_components(links, directed=False)
    if component[0] != 0:  # scipy numbers components by first member, but does not promise to
        component = np.where(component == component[0], 0, np.where(component == 0, component[0], component))
    return int(count), component


# -- pure movement chains ---------------------------------------------------------------------------


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


def _selections(coupling: Coupling) -> frozenset[str]:
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


def _selection_rewrite(source: str, output: int, axis: int, ids: np.ndarray, chosen: np.ndarray):  # type: ignore[no-untyped-def]
    def rewrite(kept: Kept) -> list[Edit]:
        mask = kept.mask(ids)
        if mask.all():
            return []
        position = np.cumsum(mask) - 1
        return [ReplaceBySelection(source, output, axis, position[chosen[mask[chosen]]])]

    return rewrite
