"""Tensors that a trace computes from literals only (position numbers, masks): computed now."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprune.frontends.torch.export import attribute

_RANDOM = ("rand", "normal", "bernoulli", "uniform", "empty", "multinomial")


class Folder:
    """Values of nodes that depend on neither inputs, nor trained tensors, nor the batch size."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._known: dict[fx.Node, Any] = {}

    def value(self, node: fx.Node) -> Any:
        """The node's result, or None where it depends on something."""
        if node not in self._known:
            self._known[node] = self._compute(node)
        return self._known[node]

    def _compute(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            tensor = attribute(self._module, str(node.target))
            stored = isinstance(tensor, torch.Tensor) and not tensor.is_floating_point()
            return tensor if stored else None
        if (
            node.op != "call_function"
            or not callable(node.target)
            or str(node.target).startswith("aten.sym_")
        ):
            return None
        if any(word in str(node.target) for word in _RANDOM):
            return None
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            return None
        if any(self.value(n) is None for n in node.all_input_nodes):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.value)
        return node.target(*args, **kwargs)
