"""Recurrent operators of several layers -> one operator per layer, so that every layer has a width of its own."""

from __future__ import annotations

import operator as builtin
from typing import Any

import torch
from torch import fx

from graphprune.frontends.torch.arguments import bound, operator_name

_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


def call(graph: fx.Graph, target: Any, *args: Any, result: Any = None) -> fx.Node:
    """A call with the sizes and type of its result (found by running it without data), as a tracer records it."""
    node = graph.call_function(target, args)
    if result is not None:
        node.meta["val"] = result
        return node
    known = fx.map_arg(args, lambda n: n.meta["val"])
    first = next(n for n in node.all_input_nodes if isinstance(n.meta["val"], torch.Tensor | tuple))
    value = first.meta["val"]
    with (value[0] if isinstance(value, tuple) else value).fake_mode:
        node.meta["val"] = target(*known)
    return node


def separate_layers(graph: fx.Graph) -> None:
    """Rewrite every recurrent call that has more than one layer, in place."""
    for node in list(graph.nodes):
        if node.op == "call_function" and operator_name(node) in _RECURRENT and _is_stacked(node):
            with graph.inserting_before(node):
                results = _separated(graph, node)
            for user in list(node.users):
                user.replace_all_uses_with(results[user.args[1]])
                graph.erase_node(user)
            graph.erase_node(node)


def _is_stacked(node: fx.Node) -> bool:
    a = bound(node)
    return a.get("num_layers", 1) > 1 and all(u.target is builtin.getitem for u in node.users)


def _separated(graph: fx.Graph, node: fx.Node) -> list[fx.Node]:
    a = bound(node)
    aten, layers, params = torch.ops.aten, a["num_layers"], a["params"]
    per, directions = len(params) // layers, 2 if a["bidirectional"] else 1
    x, states = a["x"], a["hx"] if isinstance(a["hx"], list | tuple) else [a["hx"]]
    finals: list[list[fx.Node]] = []
    for layer in range(layers):
        own = [_state(graph, s, layer, directions) for s in states]
        hx: Any = own if isinstance(a["hx"], list | tuple) else own[0]
        weights = list(params[layer * per : (layer + 1) * per])
        rest = (a["has_biases"], 1, 0.0, a["train"], a["bidirectional"], a["batch_first"])
        old = x.meta["val"]
        width = params[1].meta["val"].shape[1] * directions
        shapes = (old.new_empty((*old.shape[:2], width)), *(torch.empty_like(s.meta["val"]) for s in own))
        result = call(graph, node.target, x, hx, weights, *rest, result=shapes)
        x, *last = (call(graph, builtin.getitem, result, i) for i in range(1 + len(states)))
        finals.append(last)
        if a["dropout"] and layer + 1 < layers:
            x = call(graph, aten.dropout.default, x, a["dropout"], a["train"])
    used = {u.args[1] for u in node.users}
    ends = [
        call(graph, aten.cat.default, [f[i] for f in finals], 0) if i + 1 in used else x
        for i in range(len(states))
    ]
    return [x, *ends]


def _state(graph: fx.Graph, state: fx.Node, layer: int, directions: int) -> fx.Node:
    """The initial state of one layer; zeros are made for each, so that nothing ties their widths."""
    if state.target is torch.ops.aten.zeros.default:
        size = [directions, *state.args[0][1:]]  # type: ignore[index, misc]
        node = graph.call_function(state.target, (size,), dict(state.kwargs))
        with state.meta["val"].fake_mode:
            known = [s.meta["val"] if isinstance(s, fx.Node) else s for s in size]
            node.meta["val"] = torch.zeros(known, dtype=state.meta["val"].dtype)
        return node
    return call(graph, torch.ops.aten.slice.Tensor, state, 0, layer * directions, (layer + 1) * directions)
