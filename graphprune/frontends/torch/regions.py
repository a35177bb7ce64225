"""Regions of a trace that run under another mode (``with torch.no_grad()``) -> their nodes, in place."""

from __future__ import annotations

import operator as builtin

from torch import fx

from graphprune.frontends.torch.arguments import operator_name

_REGIONS = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast"})


def inline_regions(module: fx.GraphModule) -> None:
    """Replace every call of a region by what it computes; a mode of gradients or precision is dropped."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or operator_name(node).rsplit(".", 1)[-1] not in _REGIONS:
            continue
        position = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
        reader = node.args[position]
        assert isinstance(reader, fx.Node)
        inner = getattr(module, str(reader.target))
        assert isinstance(inner, fx.GraphModule)
        inline_regions(inner)
        places = [n for n in inner.graph.nodes if n.op == "placeholder"]
        known = dict(zip(places, node.args[position + 1 :], strict=True))
        with graph.inserting_before(node):
            found = graph.graph_copy(inner.graph, known)
        results = found if isinstance(found, list | tuple) else [found]
        for user in list(node.users):
            if user.target is builtin.getitem:
                user.replace_all_uses_with(results[user.args[1]])
                graph.erase_node(user)
        graph.erase_node(node)
        if not reader.users:
            graph.erase_node(reader)
