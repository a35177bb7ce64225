"""Rules over a model until nothing changes: replacement, tidying, and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from graphprune.adding import add_initializer, names_of
from graphprune.rewriting.context import MADE_BY, Context, Refused, operator
from graphprune.rewriting.known import Known
from graphprune.rewriting.registry import RewriteRule

IN_SUBGRAPH = "it is inside a sub-graph (If, Loop, Scan), which is left alone"
NO_RULE = "none of the rules that ran replaces it"
ROUNDS = 50
"""Rules remove what they look for, so that they end; more rounds than this are a bug in one of them."""


class Left(NamedTuple):
    """A node that stays although its operator was to go, and why."""

    node: str
    op: str
    why: str


class Rewriting(NamedTuple):
    """The edited copy, how often each rule applied, and what is left."""

    model: ir.Model
    applied: dict[str, int]
    left: list[Left]


def rewrite_graph(
    source: ir.Model,
    rules: Sequence[RewriteRule],
    unwanted: Mapping[str, Collection[str]],
    lacks: Collection[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Rewriting:
    """Apply ``rules`` to a copy of ``source`` until none of them finds anything.

    ``unwanted``: rule name -> the operators that it may replace. ``lacks``: operators that replacements must
    do without; nodes that still have one, or another unwanted one, are listed in ``left``. ``shapes``: sizes
    of inputs with dynamic axes.
    """
    model = source.clone()
    applied: Counter[str] = Counter()
    names = names_of(model)
    reasons: dict[ir.Node, str] = {}
    for _ in range(ROUNDS):
        before, reasons = applied.total(), {}
        known = Known(model, shapes)
        for rule in rules:
            count = _sweep(rule, Context(model, known, lacks, names), unwanted[rule.name], reasons)
            if count:
                applied[rule.name] += count
                known = Known(model, shapes)
        if applied.total() == before:
            break
    else:
        raise AssertionError("rewrite rules undo each other")
    everything = {*lacks, *(op for ops in unwanted.values() for op in ops)}
    return Rewriting(model, dict(applied), _left(model.graph, everything, reasons))


def _sweep(
    rule: RewriteRule, context: Context, unwanted: Collection[str], reasons: dict[ir.Node, str]
) -> int:
    """Show every node to a rule; the number of those it replaced."""
    shown = unwanted if rule.visits == rule.replaces else rule.visits
    count = 0
    for node in list(context.model.graph):
        if node.graph is None or operator(node) not in shown:
            continue
        context.begin(node)
        try:
            values = rule.function(node, context)
        except Refused as refusal:
            reasons[node] = str(refusal)
            continue
        if values is not None:
            for made in context.nodes:
                made.meta[MADE_BY] = rule.name
            _replace(context, node, values)
            count += 1
    return count


def _replace(context: Context, node: ir.Node, values: Sequence[ir.Value]) -> None:
    """Put what a rule built in the place of ``node``. New outputs take over names, types and shapes."""
    graph = context.model.graph
    for made in context.nodes:
        made.metadata_props.update(node.metadata_props)
    graph.insert_before(node, context.nodes)
    read = {v for made in context.nodes for v in made.inputs}
    for value in context.stored:
        if value in read or any(value is v for v in values):
            add_initializer(context.model, value)
    for old, new in zip(node.outputs, values, strict=False):
        name, old.name = old.name, context.unique(f"{old.name}/replaced")
        new.name = name
        new.type = old.type if old.type is not None else new.type
        new.shape = old.shape if old.shape is not None else new.shape
        new.metadata_props.update(old.metadata_props)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    _remove_unread(graph, node)
    for heir, stored in context.heirs:
        producer = stored.producer()
        gone = not stored.is_initializer() if producer is None else producer.graph is None
        if gone and stored.name:
            name, stored.name = stored.name, None
            heir.name = name


def _remove_unread(graph: ir.Graph, node: ir.Node) -> None:
    """Remove ``node`` and, upwards, what only it read: nodes and initializers."""
    stack = [node]
    while stack:
        node = stack.pop()
        if node.graph is not graph or any(o.uses() or o.is_graph_output() for o in node.outputs):
            continue
        inputs = [v for v in node.inputs if v is not None]
        graph.remove(node, safe=True)
        for value in inputs:
            producer = value.producer()
            if producer is not None:
                stack.append(producer)
            elif value.is_initializer() and not value.uses() and not value.is_graph_output():
                graph.inputs[:] = [v for v in graph.inputs if v is not value]
                graph.initializers.pop(value.name or "", None)


def _left(graph: ir.Graph, unwanted: Collection[str], reasons: Mapping[ir.Node, str]) -> list[Left]:
    outer = set(graph)
    nodes: Iterable[ir.Node] = ir.traversal.RecursiveGraphIterator(graph)
    found = []
    for node in nodes:
        if operator(node) in unwanted:
            why = reasons.get(node, NO_RULE) if node in outer else IN_SUBGRAPH
            name = node.name or next((o.name for o in node.outputs if o.name), "")
            found.append(Left(name, operator(node), why))
    return found
