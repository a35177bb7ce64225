"""Run the rules over a graph until no label varies over two axes outside pure movement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from graphprune.chains import replace_chains
from graphprune.coupler import Coupler
from graphprune.errors import ModelError
from graphprune.folding import evaluate
from graphprune.graph import Graph, Node, Value
from graphprune.labels import Labels, TooManyLabels
from graphprune.reasons import Reason
from graphprune.resolution import Coupling, resolve
from graphprune.rules import find_rule
from graphprune.rules.registry import Rule

__all__ = ["Coupling", "couple"]

MAX_RUNS = 12

LONGEST_AXIS = 1 << 22
"""No layer has as many channels: what is longer is a table of numbers."""


def couple(graph: Graph, *, keep_axis: str = "heads", allow_inexact: bool = False) -> Coupling:
    """Find the coupled channels of ``graph``.

    ``keep_axis`` decides what goes where labels vary over two axes (attention): whole ``heads``,
    ``width`` positions of every head, or ``both``. ``allow_inexact`` lifts the freeze of groups that cross a
    normalisation over channels.
    """
    settled: frozenset[str] = frozenset()
    for _ in range(MAX_RUNS):
        coupler = _run(graph, keep_axis, settled)
        coupling = resolve(graph, coupler, allow_inexact)
        unsettled = replace_chains(coupling)
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
        for node, measured in _sizes_behind(value):
            c.freeze_all(c.labels.get(measured), Reason.OUTPUT, node)
    return c


def _sizes_behind(value: Value) -> Iterator[tuple[Node, Value]]:
    """Tensors whose sizes ``value`` tells, with the nodes that read them off."""
    stack, seen = [value], {value}
    while stack:
        value = stack.pop()
        node = value.producer
        if node is None or value.known is None:
            continue
        found = [v for v in node.inputs if v is not None and v not in seen]
        if node.op in ("Shape", "Size"):
            yield from ((node, v) for v in found)
        else:
            stack += found
            seen.update(found)


def _constant_labels(c: Coupler, value: Value) -> Labels:
    shape = value.shape or ()
    if value.dtype in ("int64", "bool", "string") or value.size <= 1 or max(shape) > LONGEST_AXIS:
        return Labels.untracked(shape)
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
    reason = _unreadable(node, inputs, rule)
    if reason is not None or rule is None:
        return _frozen(c, node, inputs, reason or Reason.UNKNOWN_OPERATOR)
    if rule.settle:
        inputs = [None if x is None else c.settle(x, node) for x in inputs]
    try:
        found = rule.function(c, node, *inputs)
    except TooManyLabels:
        return _frozen(c, node, inputs, Reason.TOO_LARGE)
    except (ValueError, IndexError, TypeError, ArithmeticError):
        # two labels on one merged axis, or a form of the operator the rule does not read
        return _frozen(c, node, inputs, Reason.REARRANGED)
    outputs = [found] if isinstance(found, Labels) else list(found)
    return [_checked(c, node, x, o) for x, o in zip(outputs, node.outputs, strict=False)]


def _labelled_inputs(c: Coupler, node: Node) -> bool:
    found = (c.labels.get(v) for v in node.inputs if v is not None)
    return any(x is not None and x.terms for x in found)


def _unreadable(node: Node, inputs: Sequence[Labels | None], rule: Rule | None) -> Reason | None:
    if rule is None:
        return Reason.CONTROL_FLOW if node.captured else Reason.UNKNOWN_OPERATOR
    missing = any(v is not None and x is None for v, x in zip(node.inputs, inputs, strict=True))
    used = (o for o in node.outputs if o.consumers or o.is_output or o is node.outputs[0])
    if missing or any(o.shape is None or 0 in o.shape for o in used):
        return Reason.UNKNOWN_SHAPE
    if rule.lacks(inputs):
        return Reason.MODE
    sizes = None if rule.sizes is None else node.input(rule.sizes)
    if sizes is not None and sizes.known is None:
        return Reason.DATA_DEPENDENT
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
        value.load = lambda: _computed(node, index)
    return _constant_labels(c, value)


def _computed(node: Node, index: int) -> np.ndarray:
    try:
        return evaluate(node, index)
    except ValueError as error:
        raise ModelError(
            f"{str(error).splitlines()[0][:300]}: fold the model's constants first, and check that it runs"
        ) from error


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
