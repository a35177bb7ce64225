"""Residual branches: what an Add puts on top of a shortcut, and what goes with it."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphprune.contractions import live_nodes
from graphprune.graph import Graph, Node, Value
from graphprune.groups import counts_as_parameters


@dataclass(frozen=True, eq=False)
class Branch:
    """Input ``operand`` of ``add``, and what only serves it.

    nodes: those that no longer have a reader without the branch, in graph order; what others read too is not
        among them. params, macs: what the model loses with them. projection: the other operand is no earlier value
        but computed from the same one (a projection shortcut, or a parallel branch with fewer parameters); it stays.
    """

    add: Node
    operand: int
    nodes: tuple[Node, ...]
    params: int
    macs: int
    projection: bool

    @property
    def value(self) -> str:
        """Name of the sum."""
        return self.add.outputs[0].name

    @property
    def removed(self) -> str:
        """Name of the operand that goes."""
        return _operand(self.add, self.operand).name

    @property
    def shortcut(self) -> Value:
        """The operand that stays, and takes the place of the sum."""
        return _operand(self.add, 1 - self.operand)

    def plan_entry(self) -> dict[str, str]:
        """For ``Plan.branches``."""
        return {"node": self.add.name, "value": self.value, "removed": self.removed}


def find_branches(graph: Graph, macs: Mapping[Node, int], others: Sequence[Graph] = ()) -> list[Branch]:
    """Every residual branch of ``graph``, in graph order; one inside another is listed besides.

    An Add (or a Sum of two) has one where both operands vary with the input and have the shape of the sum (nothing
    is broadcast), where at least one contraction with a stored weight serves that operand alone, and where the other
    operand is a value that the branch is computed from, or a sum with such a value in it. Two operands that are both
    computed from one and the same value (projection shortcuts) have a branch as well: the one with more parameters.

    ``macs``: of every node that has any. ``others``: the same model at other sizes, where shapes must agree too.
    """
    live = live_nodes(graph)
    tensors = [v for v in graph.stored() if counts_as_parameters(v)]
    found = []
    for add in graph.nodes:
        if add not in live or not all(_adds_alike(g, add.outputs[0].name) for g in (graph, *others)):
            continue
        sides = [_side(add, operand, macs, tensors) for operand in (0, 1)]
        weighted = [s for s in sides if _has_weights(s, macs)]
        chosen = _residual(weighted) or _parallel(sides)
        if chosen is not None and _has_weights(chosen, macs):
            found.append(chosen)
    return found


def _operand(add: Node, index: int) -> Value:
    value = add.inputs[index]
    assert value is not None
    return value


def is_sum_of_two(node: Node) -> bool:
    """An Add, or a Sum that does the same."""
    return node.op in ("Add", "Sum") and len(node.inputs) == 2 and None not in node.inputs


def _adds_alike(graph: Graph, name: str) -> bool:
    """Whether value ``name`` is a sum of two different values that vary, all of one shape."""
    value = graph.values.get(name)
    if value is None or value.producer is None or not is_sum_of_two(value.producer):
        return False
    a, b = (_operand(value.producer, i) for i in (0, 1))
    if a is b or a.constant or b.constant or value.constant:
        return False
    return a.shape is not None and a.shape == b.shape == value.shape


def _side(add: Node, operand: int, macs: Mapping[Node, int], tensors: Sequence[Value]) -> Branch:
    dead = _serving(_operand(add, operand), add)
    params = sum(t.size for t in tensors if t.consumers and dead.issuperset(t.consumers))
    nodes = tuple(sorted(dead, key=lambda n: n.index))
    return Branch(add, operand, nodes, params, sum(macs.get(n, 0) for n in nodes), False)


def _serving(value: Value, reader: Node) -> set[Node]:
    """Nodes that nothing needs once ``reader`` no longer reads ``value``."""
    dead: set[Node] = set()
    heap: list[tuple[int, Node]] = []  # numbers of nodes are unique: nodes are never compared
    seen: set[Node] = set()

    def push(source: Value) -> None:
        if source.producer is not None and source.producer not in seen:
            seen.add(source.producer)
            heapq.heappush(heap, (-source.producer.index, source.producer))

    push(value)
    while heap:  # later nodes first: all readers of a node are decided before it is
        node = heapq.heappop(heap)[1]
        if all(_unread(out, dead, reader if out is value else None) for out in node.outputs):
            dead.add(node)
            for source in (*node.inputs, *node.captured):
                if source is not None:
                    push(source)
    return dead


def _unread(value: Value, dead: set[Node], reader: Node | None) -> bool:
    return not value.is_output and all(n in dead or n is reader for n in value.consumers)


def _has_weights(branch: Branch, macs: Mapping[Node, int]) -> bool:
    return any(
        macs.get(n, 0) > 0 and any(v is not None and v.constant and v.rank >= 2 for v in n.inputs)
        for n in branch.nodes
    )


def _residual(sides: Sequence[Branch]) -> Branch | None:
    """The side that is computed from the other one, or from a term of the other one."""
    earlier = [_ancestors(_operand(s.add, s.operand)) for s in sides]
    for side, ancestors in zip(sides, earlier, strict=True):
        if side.shortcut in ancestors:
            return side
    loose = [s for s, a in zip(sides, earlier, strict=True) if not a.isdisjoint(_terms(s.shortcut))]
    return loose[0] if len(loose) == 1 else None


def _parallel(sides: Sequence[Branch]) -> Branch | None:
    """The larger of two sides that are both computed from one value and serve nothing else."""
    first, second = (_entries(s) for s in sides)
    if first != second or len(first) != 1:
        return None
    larger = max(sides, key=lambda s: (s.params, s.macs, s.operand))
    return replace(larger, projection=True)


def _ancestors(value: Value) -> set[Value]:
    """What varies and ``value`` is computed from."""
    found: set[Value] = set()
    stack = [value]
    while stack:
        node = stack.pop().producer
        for source in () if node is None else (*node.inputs, *node.captured):
            if source is not None and not source.constant and source not in found:
                found.add(source)
                stack.append(source)
    return found


def _terms(value: Value) -> set[Value]:
    """What sums alone make ``value`` of, sums in between included."""
    found: set[Value] = set()
    stack = [value]
    while stack:
        node = stack.pop().producer
        if node is not None and is_sum_of_two(node):
            new = {v for v in node.inputs if v is not None and v.shape == value.shape} - found
            found |= new
            stack.extend(new)
    return found


def _entries(branch: Branch) -> set[Value]:
    """What the branch's nodes read from outside of it, constants aside."""
    inner = set(branch.nodes)
    read = {v for n in branch.nodes for v in (*n.inputs, *n.captured) if v is not None and not v.constant}
    return {v for v in read if v.producer not in inner}
