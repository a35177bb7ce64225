"""Optimisers whose momentum is to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

_MOMENTA = ("exp_avg", "momentum_buffer")
"""First moments, as torch's optimisers call them."""


class Stateful(Protocol):
    """An optimiser, as far as its state goes; torch's have it."""

    @property
    def state(self) -> Mapping[Any, dict[str, Any]]:
        """Parameter -> its buffers."""


def forget_momentum(optimizer: Stateful) -> None:
    """Set every first moment to 0 (AC/DC does so when weights are let go)."""
    for buffers in optimizer.state.values():
        for name in _MOMENTA:
            if isinstance(buffers.get(name), torch.Tensor):
                buffers[name].zero_()
