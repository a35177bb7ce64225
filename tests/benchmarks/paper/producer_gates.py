"""For an ablation: soft masks at the convolutions that make a channel, instead of where channels are summed over.

BatchNorm stands behind such a convolution and divides by what it measures, so it undoes every mask that is not 0, and
the loss hardly depends on the masks. What consumers read is cut off only where a mask is 0, so that the pruned network
is the masked one.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import fx

from graphprune.search import unit_masking
from graphprune.search.channels import ChannelUnits
from graphprune.search.gating import insert_gates
from graphprune.search.units import Gate

PRODUCER = "gate=producer"
"""The setting that asks for it."""

_CONSUMERS = ChannelUnits._gates


@contextmanager
def producer_gates() -> Iterator[None]:
    """Inside, channels' masks multiply the rows of the weights that make them."""
    with patch.object(ChannelUnits, "_gates", _gates), patch.object(unit_masking, "insert_gates", _insert):
        yield


def _gates(units: ChannelUnits) -> list[Gate]:
    """Consumers' gates, then producers'."""
    consumers = _CONSUMERS(units)
    known = {(g.value, g.entries.shape) for g in consumers}
    return consumers + [g for g in units._members() if (g.value, g.entries.shape) not in known]


def _insert(module: fx.GraphModule, nodes: Any, gates: list[Gate], masks: Any, statistics: Any) -> None:
    insert_gates(module, nodes, gates, masks, statistics)
    for node in list(module.graph.nodes):
        number = _gate_number(node)
        if number is not None and gates[number].entries.shape[0] == 1:  # along another axis than the outputs
            with module.graph.inserting_after(node):
                cut = module.graph.call_function(torch.sign, (node,))
            node.replace_all_uses_with(cut, delete_user_cb=lambda user, cut=cut: user is not cut)
    module.recompile()


def _gate_number(node: fx.Node) -> int | None:
    """Of a node that gives a gate its mask entries."""
    if node.op != "call_method" or node.target != "view" or not isinstance(node.args[0], fx.Node):
        return None
    part = node.args[0]
    return part.args[1] if part.target is operator.getitem else None  # type: ignore[return-value]
