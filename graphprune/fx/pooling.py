"""Pooling over windows and over the whole image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.fx.windows import Window, pad, spatial, window
from graphprune.graph import Node

_MAX: dict[int, Callable[..., torch.Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN: dict[int, Callable[..., torch.Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV: dict[int, Callable[..., torch.Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

TINY = 1e-30
"""Under a root: keeps the gradient of an all-zero window 0 instead of NaN."""


@converter("MaxPool")
def max_pool(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """max_pool1d, -2d or -3d; padding that is uneven or over half a kernel is -inf put there first."""
    if len(n.outputs) > 1 and (n.outputs[1].consumers or n.outputs[1].is_output):
        raise c.refuse(n, "its second output (the indices) is used")
    view, ceil = _window(c, n)
    padding = view.begin
    if not _torch_pads(view):
        view, ceil = _exact(c, n, view, ceil), False
        x, padding = pad(c, x, view.begin, view.end, -float("inf")), [0] * view.rank
    return c.emit(_MAX[view.rank], x, view.kernel, view.stride, padding, view.dilation, ceil)


@converter("AveragePool")
def average_pool(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """avg_pool1d, -2d or -3d; otherwise the mean over the padded input, corrected for what was padding."""
    view, ceil = _window(c, n)
    counted = bool(n.attr("count_include_pad", 0))
    if _torch_pads(view) and set(view.dilation) == {1}:
        return c.emit(_MEAN[view.rank], x, view.kernel, view.stride, view.begin, ceil, counted)
    exact = _exact(c, n, view, ceil)
    mean = _padded_mean(c, n, x, exact)
    share = _counted_share(spatial(c, n), view, exact, counted)
    if bool((share == 1).all()):
        return mean
    return c.emit(torch.div, mean, c.buffer(share.astype(np.float32), "counted_share"))


@converter("LpPool")
def lp_pool(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """(sum |x|^p)^(1/p) per window."""
    view, ceil = _window(c, n)
    exact = _exact(c, n, view, ceil)
    p = n.attr("p", 2)
    mean = _padded_mean(c, n, c.emit(torch.pow, c.emit(torch.abs, x), p), exact)
    total = c.emit(torch.mul, mean, int(np.prod(view.kernel)))
    return c.emit(torch.pow, c.emit(torch.clamp, total, min=TINY), 1 / p)


@converter("GlobalAveragePool")
def global_average_pool(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Mean over space."""
    return c.emit(torch.mean, x, _space(c, n), keepdim=True)


@converter("GlobalMaxPool")
def global_max_pool(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Maximum over space."""
    return c.emit(torch.amax, x, _space(c, n), keepdim=True)


@converter("GlobalLpPool")
def global_lp_pool(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Norm of order ``p`` over space."""
    return c.emit(torch.linalg.vector_norm, x, n.attr("p", 2), _space(c, n), keepdim=True)


def _space(c: Conversion, n: Node) -> list[int]:
    return list(range(2, len(c.shape(n))))


def _window(c: Conversion, n: Node) -> tuple[Window, bool]:
    """The node's window, and whether the number of windows is rounded up."""
    spatial(c, n)
    return window(c, n, n.attr("kernel_shape")), bool(n.attr("ceil_mode", 0))


def _torch_pads(view: Window) -> bool:
    """Whether torch's pooling takes the padding: even, and at most half a kernel."""
    return view.symmetric and all(2 * p <= k for p, k in zip(view.begin, view.kernel, strict=True))


def _exact(c: Conversion, n: Node, view: Window, ceil: bool) -> Window:
    """The window with its end padding moved to where the last window ends, so that nothing is rounded.

    A last window that would start in the end padding is dropped, as torch and onnxruntime do.
    """
    end = []
    for size, b, e, stride, span in zip(
        spatial(c, n), view.begin, view.end, view.stride, view.extent, strict=True
    ):
        room = size + b + e - span
        steps = -(-room // stride) if ceil else room // stride
        if ceil and steps * stride >= size + b:
            steps -= 1
        end.append(steps * stride + span - size - b)
    return view.padded((view.begin, end))


def _padded_mean(c: Conversion, n: Node, x: fx.Node, view: Window) -> fx.Node:
    """Mean over every window of the zero-padded input, padding counted."""
    x = pad(c, x, view.begin, view.end)
    if set(view.dilation) == {1}:
        return c.emit(_MEAN[view.rank], x, view.kernel, view.stride)
    # torch's pooling has no dilation: a convolution of every channel with a constant kernel.
    kernel = np.full((1, 1, *view.kernel), 1 / np.prod(view.kernel), np.float32)
    single = c.method("unsqueeze", c.emit(torch.flatten, x, 0, 1), 1)
    y = c.emit(_CONV[view.rank], single, c.buffer(kernel, "mean_kernel"), None, view.stride, 0, view.dilation)
    return c.emit(torch.unflatten, c.emit(torch.squeeze, y, 1), 0, (-1, c.shape(n)[1]))


def _counted_share(sizes: list[int], view: Window, exact: Window, counted: bool) -> np.ndarray:
    """The share of every window's positions that its mean is over, (*output spatial).

    Padding that rounding up added is never counted.
    """
    share = np.ones(())
    for axis, size in enumerate(sizes):
        begin, stride, span = view.begin[axis], view.stride[axis], view.extent[axis]
        low, high = (-begin, size + view.end[axis]) if counted else (0, size)
        starts = np.arange(-begin, size + exact.end[axis] - span + 1, stride)
        positions = starts[:, None] + view.dilation[axis] * np.arange(view.kernel[axis])
        share = share[..., None] * ((positions >= low) & (positions < high)).mean(1)
    return share
