"""Normalisations, and Dropout: here is what differs between ``train()`` and ``eval()``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx
from torch.nn import functional as F

from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.fx.windows import axis_of
from graphprune.graph import Node

TINY = 1e-30
"""Under a root: keeps the gradient of a constant region 0 instead of NaN."""


@converter("BatchNormalization", literals=(3, 4))
def batch_norm(
    c: Conversion, n: Node, x: fx.Node, scale: fx.Node, bias: fx.Node, mean: None = None, var: None = None
) -> fx.Node:
    """torch.batch_norm with the stored statistics as buffers; torch's momentum is 1 - ONNX's."""
    if not n.attr("spatial", 1):
        raise c.refuse(n, "spatial=0 (statistics per position) was removed from ONNX; convert it to opset 9")
    training = True if n.opset >= 14 and n.attr("training_mode", 0) else c.training
    momentum = 1 - n.attr("momentum", 0.9)
    return c.emit(
        F.batch_norm, x, c.stat(n, 3), c.stat(n, 4), scale, bias, training, momentum, n.attr("epsilon", 1e-5)
    )


@converter("InstanceNormalization")
def instance_norm(c: Conversion, n: Node, x: fx.Node, scale: fx.Node, bias: fx.Node) -> fx.Node:
    """Statistics of every sample and channel, at any time."""
    # torch.nn.functional's own refuses maps of one position
    epsilon = n.attr("epsilon", 1e-5)
    return c.emit(torch.instance_norm, x, scale, bias, None, None, True, 0.0, epsilon, False)


@converter("GroupNormalization")
def group_norm(c: Conversion, n: Node, x: fx.Node, scale: fx.Node, bias: fx.Node) -> fx.Node:
    """group_norm; in opset 18 scale and bias have one entry per group, from 21 on one per channel."""
    groups = n.attr("num_groups")
    if n.opset < 21:
        each = c.shape(n)[1] // groups
        scale, bias = (c.emit(torch.repeat_interleave, p, each) for p in (scale, bias))
    return c.emit(torch.group_norm, x, groups, scale, bias, n.attr("epsilon", 1e-5))


@converter("LayerNormalization")
def layer_norm(
    c: Conversion, n: Node, x: fx.Node, scale: fx.Node, bias: fx.Node | None = None
) -> Sequence[fx.Node]:
    """Over the axes from ``axis`` on; the mean and inverse deviation are computed where they are read."""
    axes = _trailing(c, n)
    if not _used(n, 1, 2) and axes[0] > 0:
        shape = c.shape(n)[axes[0] :]
        return [_affine_norm(c, n, x, shape, scale, bias)]
    mean = c.emit(torch.mean, x, axes, True)
    centred = c.emit(torch.sub, x, mean)
    inverse = _inverse_rms(c, n, centred, axes)
    return [_affine(c, c.emit(torch.mul, centred, inverse), scale, bias), mean, inverse]


@converter("RMSNormalization", "SimplifiedLayerNormalization", "com.microsoft::SimplifiedLayerNormalization")
def rms_norm(c: Conversion, n: Node, x: fx.Node, scale: fx.Node) -> Sequence[fx.Node]:
    """Divided by the root mean square over the axes from ``axis`` on, then scaled."""
    axes = _trailing(c, n)
    shape = c.shape(n)[axes[0] :]
    if not _used(n, 1) and axes[0] > 0 and c.shape(n, 1) == shape:
        return [c.emit(F.rms_norm, x, shape, scale, n.attr("epsilon", 1e-5))]
    inverse = _inverse_rms(c, n, x, axes)
    return [_affine(c, c.emit(torch.mul, x, inverse), scale, None), inverse]


@converter("com.microsoft::SkipLayerNormalization")
def skip_layer_norm(
    c: Conversion,
    n: Node,
    x: fx.Node,
    skip: fx.Node,
    scale: fx.Node,
    shift: fx.Node | None = None,
    bias: fx.Node | None = None,
) -> Sequence[fx.Node | None]:
    """layer_norm of a sum over the last axis; the sum itself is the fourth output."""
    total = _sum(c, n, x, skip, bias)
    normed = _affine_norm(c, n, total, c.shape(n)[-1:], scale, shift, 1e-12)
    return [normed, None, None, total]


@converter("com.microsoft::SkipSimplifiedLayerNormalization")
def skip_rms_norm(
    c: Conversion, n: Node, x: fx.Node, skip: fx.Node, scale: fx.Node, bias: fx.Node | None = None
) -> Sequence[fx.Node | None]:
    """As SkipLayerNormalization, without mean and shift."""
    total = _sum(c, n, x, skip, bias)
    inverse = _inverse_rms(c, n, total, [-1], 1e-12)
    return [_affine(c, c.emit(torch.mul, total, inverse), scale, None), None, None, total]


@converter("LRN")
def lrn(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Divided by (bias + alpha * mean of squares over neighbouring channels) ^ beta.

    Composed, because torch.nn.functional.local_response_norm centres even sizes the other way round.
    """
    size = n.attr("size")
    squares = c.emit(torch.unsqueeze, c.emit(torch.flatten, c.emit(torch.square, x), 2), 1)
    squares = c.emit(F.pad, squares, [0, 0, (size - 1) // 2, size // 2])
    mean = c.method("reshape_as", c.emit(F.avg_pool2d, squares, [size, 1], 1), x)
    scaled = c.emit(torch.add, c.emit(torch.mul, mean, n.attr("alpha", 1e-4)), n.attr("bias", 1.0))
    return c.emit(torch.div, x, c.emit(torch.pow, scaled, n.attr("beta", 0.75)))


@converter("MeanVarianceNormalization")
def mean_variance_norm(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """(x - mean) / (deviation + 1e-9) over ``axes``."""
    axes = n.attr("axes") or [0, 2, 3]
    centred = c.emit(torch.sub, x, c.emit(torch.mean, x, axes, True))
    variance = c.emit(torch.mean, c.emit(torch.square, centred), axes, True)
    deviation = c.emit(torch.sqrt, c.emit(torch.clamp, variance, min=TINY))
    return c.emit(torch.div, centred, c.emit(torch.add, deviation, 1e-9))


@converter("LpNormalization")
def lp_norm(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Divided by the norm along ``axis``; what is all zero stays zero."""
    return c.emit(F.normalize, x, n.attr("p", 2), n.attr("axis", -1))


@converter("Dropout", literals=(1, 2))
def dropout(c: Conversion, n: Node, x: fx.Node, _ratio: None = None, _mode: None = None) -> fx.Node:
    """Drops in ``train()`` only, whatever mode the file was exported in. The mask output is not supported."""
    given = c.literal(n, 1)
    ratio = n.attr("ratio", 0.5) if given is None else float(given.item())
    return c.emit(F.dropout, x, ratio, c.training)


def _used(n: Node, *outputs: int) -> bool:
    """Whether one of these outputs is read by a node or is an output of the graph."""
    present = [n.outputs[i] for i in outputs if i < len(n.outputs)]
    return any(value.consumers or value.is_output for value in present)


def _trailing(c: Conversion, n: Node) -> list[int]:
    """Axes from ``axis`` to the last."""
    return list(range(axis_of(c, n, -1), len(c.shape(n))))


def _affine_norm(
    c: Conversion,
    n: Node,
    x: fx.Node,
    shape: tuple[int, ...],
    scale: fx.Node,
    bias: fx.Node | None,
    epsilon: float = 1e-5,
) -> fx.Node:
    """layer_norm over the last axes, of sizes ``shape``; scale and bias may broadcast.

    Scale and bias are inputs 1 and 2 of LayerNormalization, 2 and 3 of SkipLayerNormalization.
    """
    epsilon = n.attr("epsilon", epsilon)
    first = 2 if n.op.endswith("SkipLayerNormalization") else 1
    fits = [c.shape(n, first + i) == shape for i, p in enumerate((scale, bias)) if p is not None]
    if all(fits):
        return c.emit(F.layer_norm, x, shape, scale, bias, epsilon)
    return _affine(c, c.emit(F.layer_norm, x, shape, None, None, epsilon), scale, bias)


def _affine(c: Conversion, x: fx.Node, scale: fx.Node, bias: fx.Node | None) -> fx.Node:
    y = c.emit(torch.mul, x, scale)
    return y if bias is None else c.emit(torch.add, y, bias)


def _inverse_rms(c: Conversion, n: Node, x: fx.Node, axes: list[int], epsilon: float = 1e-5) -> fx.Node:
    """1 / sqrt(mean square + epsilon), kept dimensions."""
    square = c.emit(torch.mean, c.emit(torch.square, x), axes, True)
    return c.emit(torch.rsqrt, c.emit(torch.add, square, n.attr("epsilon", epsilon)))


def _sum(c: Conversion, n: Node, x: fx.Node, skip: fx.Node, bias: fx.Node | None) -> fx.Node:
    if _used(n, 1, 2):
        raise c.refuse(n, "its second or third output (the statistics) is used")
    total = c.emit(torch.add, x, skip)
    return total if bias is None else c.emit(torch.add, total, bias)
