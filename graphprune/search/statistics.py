"""Normalisations over channels under soft masks: statistics weighted by the masks.

Masks of 0 and 1 then give the statistics over the kept channels, which the pruned file computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import fx

from graphprune.errors import ConversionError
from graphprune.graph import Node
from graphprune.records import Mixing

Weighted = Callable[..., torch.Tensor]


def weighted_layer_norm(
    x: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """LayerNormalization over the last axis, with mean and variance weighted by ``mask`` ``[channels]``."""
    total = mask.sum()
    centred = x - (x * mask).sum(-1, keepdim=True) / total
    variance = (centred.square() * mask).sum(-1, keepdim=True) / total
    y = centred * torch.rsqrt(variance + eps) * scale
    return y if bias is None else y + bias


def weighted_rms_norm(
    x: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """RMSNormalization over the last axis, with the mean square weighted by ``mask`` ``[channels]``."""
    mean = (x.square() * mask).sum(-1, keepdim=True) / mask.sum()
    y = x * torch.rsqrt(mean + eps) * scale
    return y if bias is None else y + bias


_WEIGHTED: dict[str, Weighted] = {
    "LayerNormalization": weighted_layer_norm,
    "RMSNormalization": weighted_rms_norm,
    "SimplifiedLayerNormalization": weighted_rms_norm,
}


def check_mixings(mixings: Sequence[Mixing]) -> None:
    """Raises ConversionError for an operator whose statistics cannot be weighted by masks."""
    for mixing in mixings:
        node = mixing.node
        first = node.input(0)
        rank = 0 if first is None else first.rank
        over_last = node.attr("axis", -1) in (-1, rank - 1) and mixing.axis == rank - 1
        if node.op not in _WEIGHTED or not over_last:
            raise ConversionError(
                f"trained masks cannot pass node {node.name!r} ({node.op}), which mixes channels: "
                "leave out --allow-inexact, --exclude its channels, or use a one-shot method"
            )


def weight_statistics(
    graph: fx.Graph, nodes: Mapping[str, str], views: Sequence[tuple[Node, fx.Node]]
) -> None:
    """Replace normalisations by weighted ones, in place: ONNX node and the fx node of its mask ``[channels]``."""
    by_name = {n.name: n for n in graph.nodes}
    for node, mask in views:
        operands = [None if v is None else by_name[nodes[v.name]] for v in (node.input(i) for i in range(3))]
        old = by_name[nodes[node.outputs[0].name]]
        x, scale, bias = operands
        with graph.inserting_after(old):
            new = graph.call_function(
                _WEIGHTED[node.op], (x, mask, scale, bias, float(node.attr("epsilon", 1e-5)))
            )
        old.replace_all_uses_with(new)
    graph.eliminate_dead_code()
