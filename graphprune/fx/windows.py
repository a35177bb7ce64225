"""Geometry of sliding windows: kernel, stride, dilation and explicit padding per spatial axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx
from torch.nn import functional as F

from graphprune.fx.conversion import Conversion
from graphprune.graph import Node

Pads = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Window:
    """One entry per spatial axis; ``begin`` and ``end`` are the padding on each side."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    begin: list[int]
    end: list[int]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def extent(self) -> list[int]:
        """Positions that one window spans, dilation included."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    @property
    def symmetric(self) -> bool:
        """Whether both sides have the same padding, as torch's own argument needs."""
        return self.begin == self.end

    def padded(self, pads: Pads) -> Window:
        """The same window with other padding."""
        return replace(self, begin=pads[0], end=pads[1])


def axis_of(c: Conversion, node: Node, default: int) -> int:
    """The ``axis`` attribute, counted from 0, for the first input."""
    return int(node.attr("axis", default)) % len(c.shape(node))


def spatial(c: Conversion, node: Node) -> list[int]:
    """Sizes of the spatial axes of the first input, (batch, channel, *spatial).

    Raises ConversionError unless there are one to three of them, which is what torch has kernels for.
    """
    return list(spatial_part(c, node, c.shape(node)))


def spatial_part(c: Conversion, node: Node, shape: Sequence[int]) -> Sequence[int]:
    """``shape`` without its first two axes. Raises ConversionError unless one to three are left."""
    sizes = shape[2:]
    if not 1 <= len(sizes) <= 3:
        raise c.refuse(node, f"PyTorch has it for 1 to 3 spatial axes, and there are {len(sizes)}")
    return sizes


def window(c: Conversion, node: Node, kernel: Sequence[int]) -> Window:
    """The window of a convolution or pooling node, its ``auto_pad`` turned into explicit padding."""
    bare, mode = unpadded(node, kernel), auto_pad(node)
    if not mode.startswith("SAME"):
        return bare.padded(explicit_pads(node, bare.rank))
    total = [  # as many windows as ceil(size / stride)
        max((-(-size // stride) - 1) * stride + span - size, 0)
        for size, stride, span in zip(spatial(c, node), bare.stride, bare.extent, strict=True)
    ]
    return bare.padded(split_pads(total, upper=mode == "SAME_UPPER"))


def unpadded(node: Node, kernel: Sequence[int]) -> Window:
    """The window without its padding."""
    ones, zeros = [1] * len(kernel), [0] * len(kernel)
    stride, dilation = node.attr("strides") or ones, node.attr("dilations") or ones
    return Window(list(kernel), list(stride), list(dilation), zeros, zeros)


def auto_pad(node: Node) -> str:
    """NOTSET, VALID, SAME_UPPER or SAME_LOWER."""
    return str(node.attr("auto_pad") or "NOTSET")


def explicit_pads(node: Node, rank: int) -> Pads:
    """Begin and end padding of a node whose ``auto_pad`` is NOTSET (the ``pads`` attribute) or VALID (none)."""
    pads = None if auto_pad(node) == "VALID" else node.attr("pads")
    pads = pads or [0] * (2 * rank)
    return list(pads[:rank]), list(pads[rank:])


def split_pads(total: Sequence[int], *, upper: bool) -> Pads:
    """Padding shared out over both sides; an odd one goes to the end (``upper``) or to the begin."""
    less = [t // 2 for t in total]
    more = [t - half for t, half in zip(total, less, strict=True)]
    return (less, more) if upper else (more, less)


def pad(c: Conversion, x: fx.Node, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> fx.Node:
    """Pad (or crop, where negative) the last ``len(begin)`` axes of ``x`` by a constant."""
    if not any(begin) and not any(end):
        return x
    both = [p for pair in zip(reversed(begin), reversed(end), strict=True) for p in pair]
    return c.emit(F.pad, x, both, value=value)
