"""Tensors that a trace computes from literals and the batch size only (position numbers, masks): computed now."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprune.frontends.torch.export import attribute

_RANDOM = ("rand", "normal", "bernoulli", "uniform", "empty", "multinomial")


class Folder:
    """Values of nodes that depend on neither inputs nor trained tensors, nor on the batch where ``batch`` is None."""

    def __init__(self, module: fx.GraphModule, batch: int | None = None) -> None:
        self._module = module
        self._batch = batch
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
        if isinstance(node.meta.get("val"), torch.SymInt):
            return self._size(node.meta["val"])
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

    def _size(self, size: torch.SymInt) -> int | None:
        if self._batch is None:
            return None
        expression = size.node.expr
        return int(expression.subs(dict.fromkeys(expression.free_symbols, self._batch)))


class RepeatedFolder:
    """Values that are the same for every sample of a batch of any size, as that of one sample."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._folders = [Folder(module, batch) for batch in (2, 3)]

    def value(self, node: fx.Node) -> torch.Tensor | None:
        """The node's result, of size 1 along axes that follow the batch; None where it depends on more."""
        fake = node.meta.get("val")
        if not isinstance(fake, torch.Tensor):
            return None
        axes = [i for i, d in enumerate(fake.shape) if not isinstance(d, int)]
        found = [f.value(node) for f in self._folders]
        if not axes or any(not isinstance(t, torch.Tensor) for t in found):
            return None
        once = []
        for tensor in found:
            one = tensor
            for axis in axes:
                one = one.narrow(axis, 0, 1)
            if not torch.equal(one.expand_as(tensor), tensor):
                return None
            once.append(one)
        return once[0] if torch.equal(*once) else None
