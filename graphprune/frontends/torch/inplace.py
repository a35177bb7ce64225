"""In-place operators: which names stand for the changed tensor, and which changes cannot be followed."""

from __future__ import annotations

import operator as builtin

import torch
from torch import fx

from graphprune.errors import ConversionError
from graphprune.frontends.torch.arguments import operator_name, schema_of

MAYBE_VIEWS = frozenset({"contiguous", "reshape", "flatten", "to", "dropout", "reshape_as", "type_as"})
"""Operators that may return their operand's own memory although their schema does not say so."""


class Aliases:
    """Who shares memory with whom.

    Raises ConversionError for a tensor that is changed in place while another view of it is read later.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._order = {node: i for i, node in enumerate(graph.nodes)}
        self._root: dict[fx.Node, fx.Node] = {}
        self._same: dict[fx.Node, fx.Node] = {}
        self._members: dict[fx.Node, list[fx.Node]] = {}
        self._renewed: dict[fx.Node, list[fx.Node]] = {}
        for node in graph.nodes:
            self._add(node)

    def renewed(self, node: fx.Node) -> list[fx.Node]:
        """Earlier nodes that stand for the result of ``node`` from now on; empty unless it works in place."""
        return self._renewed.get(node, [])

    def _add(self, node: fx.Node) -> None:
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        schema = schema_of(node)
        changes = schema is not None and schema.is_mutable
        first = schema.arguments[0].alias_info if schema is not None and schema.arguments else None
        shares = source is not None and (
            node.target is builtin.getitem
            or (schema is not None and any(r.alias_info is not None for r in schema.returns))
            or (isinstance(node.target, torch._ops.OpOverload) and operator_name(node) in MAYBE_VIEWS)
        )
        root = self._root[source] if shares and source is not None else node
        self._root[node], self._same[node] = root, node
        self._members.setdefault(root, []).append(node)
        if source is None or not changes or first is None or not first.is_write:
            return
        origin = self._same[source]
        self._same[node] = origin
        lineage = [m for m in self._members[self._root[source]] if self._same[m] is origin and m is not node]
        self._renewed[node] = lineage
        for other in self._members[self._root[source]]:
            if other is node or self._same[other] is origin or other is self._container(source):
                continue
            if any(self._order[user] > self._order[node] for user in other.users):
                raise ConversionError(
                    f"node {node.name!r} ({node.target}) changes a tensor in place that {other.name!r} is a view of: "
                    "write it without changing the tensor in place"
                )

    @staticmethod
    def _container(node: fx.Node) -> fx.Node | None:
        return node.args[0] if node.target is builtin.getitem and isinstance(node.args[0], fx.Node) else None
