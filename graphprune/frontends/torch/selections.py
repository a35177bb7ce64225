"""A constant that a trace computes from parameters, and what pruning left of it -> the positions that were kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx, nn

from graphprune.frontends.torch.arguments import bound, schema_of
from graphprune.frontends.torch.export import attribute
from graphprune.frontends.torch.views import is_view

_CLOSE = 1e-5
"""Of the largest number: torch and the engine compute the constant in another order."""


def is_weight(node: fx.Node) -> bool:
    """Whether the value is the weight of a layer, perhaps by way of views: parametrised and standardised weights."""
    for user in node.users:
        if schema_of(user) is not None and (
            bound(user).get("weight") is node or (is_view(user) and is_weight(user))
        ):
            return True
    return False


def computed_again(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The node and all that it is computed from once more, because others may read parts of that pruned."""
    known: dict[fx.Node, fx.Node] = {}

    def copied(n: fx.Node) -> fx.Node:
        for source in n.all_input_nodes:
            if source not in known:
                copied(source)
        known[n] = graph.node_copy(n, known.__getitem__)
        return known[n]

    return copied(node)


def kept_positions(module: nn.Module, node: fx.Node, left: np.ndarray) -> dict[int, list[int]] | None:
    """Axis -> positions of the value of ``node`` that ``left`` holds; None where it is no selection of it."""
    value = _computed(module, node)
    if not isinstance(value, torch.Tensor) or value.ndim != left.ndim:
        return None
    old = value.detach().cpu().numpy()
    cut = [a for a in range(old.ndim) if old.shape[a] != left.shape[a]]
    if len(cut) != 1 or old.shape[cut[0]] < left.shape[cut[0]]:
        return None
    found = _matched(np.moveaxis(old, cut[0], 0), np.moveaxis(left, cut[0], 0))
    return None if found is None else {cut[0]: found}


def _matched(old: np.ndarray, new: np.ndarray) -> list[int] | None:
    """Positions of ``old`` that ``new`` holds, in order."""
    rows, wanted = old.reshape(len(old), -1), new.reshape(len(new), -1)
    allowed = _CLOSE * max(float(np.abs(rows[np.isfinite(rows)]).max(initial=0)), 1e-30)
    found: list[int] = []
    for index, row in enumerate(wanted):
        first = found[-1] + 1 if found else 0
        last = len(rows) - (len(wanted) - index) + 1
        with np.errstate(invalid="ignore"):
            apart = np.where(rows[first:last] == row, 0, np.abs(rows[first:last] - row)).max(1, initial=0)
        if not len(apart) or not apart.min() <= allowed:
            return None
        found.append(first + int(apart.argmin()))
    return found


def _computed(module: nn.Module, node: fx.Node) -> Any:
    """What the node returns, from tensors that the module holds; None where it depends on an input."""
    known: dict[fx.Node, Any] = {}

    def value(n: fx.Node) -> Any:
        if n not in known:
            known[n] = compute(n)
        return known[n]

    def compute(n: fx.Node) -> Any:
        if n.op == "get_attr":
            return attribute(module, str(n.target))
        if (
            n.op != "call_function"
            or not callable(n.target)
            or any(value(i) is None for i in n.all_input_nodes)
        ):
            return None
        args, kwargs = fx.map_arg((n.args, n.kwargs), value)
        return n.target(*args, **kwargs)

    with torch.no_grad():
        return value(node)
