"""Writes into a part of a tensor (``x[..., :2] += y``) -> the tensor with that part replaced."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprune.frontends.torch.arguments import operator_name, schema_of
from graphprune.frontends.torch.inplace import MAYBE_VIEWS
from graphprune.frontends.torch.layers import call

_SCATTER: dict[str, Any] = {
    "slice": torch.ops.aten.slice_scatter.default,
    "select": torch.ops.aten.select_scatter.default,
}


def replace_partial_writes(graph: fx.Graph) -> None:
    """Rewrite in-place operators on slices and selections, in place; those that other views would see are left."""
    for node in list(graph.nodes):
        chain = _chain(node)
        if chain and not _seen_elsewhere(graph, node, chain):
            functional, args = _functional(node)
            if functional is not None:
                _replace(graph, node, chain, functional, args)


def drop_unread(graph: fx.Graph) -> None:
    """Erase what nobody reads, in-place operators on tensors of their own included."""
    for node in reversed(graph.nodes):
        schema = schema_of(node)
        if schema is None or node.users:
            continue
        written = node.args[0] if schema.is_mutable and node.args else None
        own = isinstance(written, fx.Node) and written.op == "call_function" and not is_view(written)
        if not schema.is_mutable or (own and isinstance(written, fx.Node) and len(written.users) == 1):
            graph.erase_node(node)
    graph.eliminate_dead_code()


def is_view(node: fx.Node) -> bool:
    """Whether the node may return memory of its operand."""
    schema = schema_of(node)
    if schema is None or operator_name(node) in MAYBE_VIEWS:
        return True
    return any(r.alias_info is not None for r in schema.returns)


def _chain(node: fx.Node) -> list[fx.Node]:
    """The views that lead from a tensor to the part that is written, innermost first."""
    schema = schema_of(node)
    if schema is None or not schema.is_mutable or not node.args:
        return []
    found = []
    view = node.args[0]
    while isinstance(view, fx.Node) and view.op == "call_function" and operator_name(view) in _SCATTER:
        found.append(view)
        view = view.args[0]
    return found


def _functional(node: fx.Node) -> tuple[Any, tuple[Any, ...]]:
    """The operator that returns its result instead of writing it (None where there is none), and its arguments."""
    name = operator_name(node)
    if name == "copy_":
        target, source = node.args[:2]
        assert isinstance(target, fx.Node)
        known = isinstance(source, fx.Node) and source.meta["val"].dtype == target.meta["val"].dtype
        return (torch.ops.aten.expand_as.default, (source, target)) if known else (None, ())
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, getattr(node.target, "_overloadname", "default"), None), node.args


def _seen_elsewhere(graph: fx.Graph, node: fx.Node, chain: list[fx.Node]) -> bool:
    """Whether a tensor that shares memory, other than those in the chain, is read later."""
    base = chain[-1].args[0]
    assert isinstance(base, fx.Node)
    order = {n: i for i, n in enumerate(graph.nodes)}
    sharing, stack = set(), [base]
    while stack:
        for user in stack.pop().users:
            if schema_of(user) is not None and is_view(user) and user not in sharing:
                sharing.add(user)
                stack.append(user)
    if is_view(base):
        return True
    others = sharing - {*chain, node}
    return any(order[o] < order[node] and any(order[u] > order[node] for u in o.users) for o in others)


def _replace(
    graph: fx.Graph, node: fx.Node, chain: list[fx.Node], functional: Any, args: tuple[Any, ...]
) -> None:
    later, passed = set(), False
    for other in graph.nodes:
        if passed:
            later.add(other)
        passed = passed or other is node
    with graph.inserting_before(node):
        new = call(graph, functional, *args)
        results = {node: new, chain[0]: new}
        for view in chain:
            base = view.args[0]
            assert isinstance(base, fx.Node)
            new = call(graph, _SCATTER[operator_name(view)], base, new, *view.args[1:])
            results[base] = new
    for old, result in results.items():
        old.replace_all_uses_with(result, delete_user_cb=lambda user: user in later)
    graph.erase_node(node)
