"""Convolutions. The kernel is read as it is stored; padding that torch cannot express is applied first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx
from torch.nn import functional as F

from graphprune.fx.activations import activation
from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.fx.windows import (
    Window,
    auto_pad,
    explicit_pads,
    pad,
    spatial,
    spatial_part,
    split_pads,
    unpadded,
    window,
)
from graphprune.graph import Node

_CONV: dict[int, Callable[..., torch.Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., torch.Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


@converter("Conv")
def conv(c: Conversion, n: Node, x: fx.Node, w: fx.Node, b: fx.Node | None = None) -> fx.Node:
    """conv1d, conv2d or conv3d."""
    return _conv(c, n, x, w, b)


def _conv(c: Conversion, n: Node, x: fx.Node, w: fx.Node, b: fx.Node | None) -> fx.Node:
    view = window(c, n, _kernel(c, n))
    padding = view.begin
    if not view.symmetric:
        x, padding = pad(c, x, view.begin, view.end), [0] * view.rank
    return c.emit(_CONV[view.rank], x, w, b, view.stride, padding, view.dilation, n.attr("group", 1))


@converter("com.microsoft::FusedConv")
def fused_conv(
    c: Conversion, n: Node, x: fx.Node, w: fx.Node, b: fx.Node | None = None, z: fx.Node | None = None
) -> fx.Node:
    """Convolution, plus ``z``, then an activation."""
    name = n.attr("activation", "")
    function = activation(name)
    if function is None:
        raise c.refuse(n, f"its activation {name!r} is not supported; export without fused operators")
    y = _conv(c, n, x, w, b)
    return function(c, y if z is None else c.emit(torch.add, y, z))


@converter("ConvTranspose")
def conv_transpose(c: Conversion, n: Node, x: fx.Node, w: fx.Node, b: fx.Node | None = None) -> fx.Node:
    """conv_transpose1d, -2d or -3d with the smaller padding of both sides; the rest is cropped."""
    view = _transposed_window(c, n)
    grown = [a - min(e, 0) for a, e in zip(_output_padding(n, view.rank), view.end, strict=True)]
    for extra, stride, dilation in zip(grown, view.stride, view.dilation, strict=True):
        if extra >= max(stride, dilation):
            raise c.refuse(n, f"its output must grow by {extra} positions, a whole stride or more")
    end = [max(e, 0) for e in view.end]
    shared = [min(pads) for pads in zip(view.begin, end, strict=True)]
    function = _TRANSPOSED[view.rank]
    y = c.emit(function, x, w, b, view.stride, shared, grown, n.attr("group", 1), view.dilation)
    front, back = ([s - p for s, p in zip(shared, side, strict=True)] for side in (view.begin, end))
    return pad(c, y, front, back)


def _kernel(c: Conversion, n: Node) -> list[int]:
    """Spatial sizes of the weight, (out, in, *kernel)."""
    return list(spatial_part(c, n, c.shape(n, 1)))


def _output_padding(n: Node, rank: int) -> list[int]:
    return list(n.attr("output_padding") or [0] * rank)


def _transposed_window(c: Conversion, n: Node) -> Window:
    """What is removed on each side; ``output_shape`` and SAME padding are solved for it.

    Where the output must be larger than the full one, the end is negative.
    """
    bare, mode, wanted = unpadded(n, _kernel(c, n)), auto_pad(n), n.attr("output_shape")
    if not wanted and not mode.startswith("SAME"):
        return bare.padded(explicit_pads(n, bare.rank))
    sizes = spatial(c, n)
    target = wanted[-bare.rank :] if wanted else [i * s for i, s in zip(sizes, bare.stride, strict=True)]
    lengths = zip(sizes, bare.stride, bare.extent, _output_padding(n, bare.rank), target, strict=True)
    total = [(size - 1) * stride + span + added - length for size, stride, span, added, length in lengths]
    begin, end = split_pads([max(t, 0) for t in total], upper=mode == "SAME_UPPER")
    return bare.padded((begin, [e + min(t, 0) for e, t in zip(end, total, strict=True)]))
