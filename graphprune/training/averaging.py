"""Exponential moving average of a module's weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Average:
    """The moving average of all parameters and buffers of ``module``, with ``decay`` per step.

    At step t the decay is min(decay, (1 + t) / (10 + t)), so that the first steps, far from the end, are
    soon forgotten. Whole numbers and truth values are not averaged but taken as they are.

    (torch's AveragedModel copies the module, and a copied GraphModule loses what its graph does not use;
    this keeps the tensors only.)
    """

    def __init__(self, module: nn.Module, decay: float, names: Collection[str] | None = None) -> None:
        """``names``: the tensors to average, where not all (masks have a course of their own)."""
        self.module = module
        self.decay = decay
        self.names = names
        self.steps = 0
        self.averages = {name: value.clone() for name, value in self._values().items()}

    def _values(self) -> dict[str, torch.Tensor]:
        """The module's own tensors, looked up each time: moving a module replaces its buffers."""
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {n: value.detach() for n, value in named if self.names is None or n in self.names}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's present values; to be called after each optimiser step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in self._values().items():
            average = self.averages[name]
            if value.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again from the module's present values."""
        self.steps = 0
        for name, value in self._values().items():
            self.averages[name].copy_(value)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Put the averages into the module, for good."""
        for name, value in self._values().items():
            value.copy_(self.averages[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averages inside the ``with`` block, and its own values again after it."""
        own = {name: value.clone() for name, value in self._values().items()}
        self.copy_to_module()
        try:
            yield
        finally:
            for name, value in self._values().items():
                value.copy_(own[name])

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of steps."""
        return {"steps": self.steps, "averages": self.averages}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict``. Raises KeyError where it is of another module."""
        self.steps = int(state_dict["steps"])
        for name, value in self.averages.items():
            value.copy_(state_dict["averages"][name])
