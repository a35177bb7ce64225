"""For an ablation: masks at the convolutions that make a channel, instead of where channels are summed over.

BatchNorm stands behind such a convolution and divides by what it measures, so it undoes a mask that is not 0: the
loss hardly depends on soft masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphprune.search.channels import ChannelUnits
from graphprune.search.units import Gate

PRODUCER = "gate=producer"
"""The setting that asks for it."""


@contextmanager
def producer_gates() -> Iterator[None]:
    """Inside, channels' masks multiply the rows of the weights that make them."""
    original = ChannelUnits._gates
    ChannelUnits._gates = _gates  # type: ignore[method-assign]
    try:
        yield
    finally:
        ChannelUnits._gates = original  # type: ignore[method-assign]


def _gates(units: ChannelUnits) -> list[Gate]:
    consumers = {(g.value, g.entries.shape) for g in _CONSUMERS(units)}
    return [g for g in units._members() if (g.value, g.entries.shape) not in consumers]


_CONSUMERS = ChannelUnits._gates
