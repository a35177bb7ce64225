"""Pooling and resizing."""

from __future__ import annotations

import onnx_ir as ir

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.convolution import spread
from graphprune.frontends.torch.registry import operator


@operator("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(
    c: Conversion, x: ir.Value, kernel_size: list[int], stride: list[int], padding: list[int],
    dilation: list[int], ceil_mode: bool,
) -> ir.Value:  # fmt: skip
    """Largest of every window."""
    space = c.rank(x) - 2
    kernel = spread(kernel_size, space)
    return c.emit(
        "MaxPool", x, kernel_shape=kernel, strides=spread(stride, space) if stride else kernel,
        pads=spread(padding, space) * 2, dilations=spread(dilation, space), ceil_mode=int(ceil_mode),
    )  # fmt: skip


@operator("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(
    c: Conversion, x: ir.Value, kernel_size: list[int], stride: list[int], padding: list[int], ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None = None,
) -> ir.Value:  # fmt: skip
    """Mean of every window."""
    if divisor_override is not None:
        raise c.refuse("it divides by a number of its own")
    space = c.rank(x) - 2
    kernel = spread(kernel_size, space)
    return c.emit(
        "AveragePool", x, kernel_shape=kernel, strides=spread(stride, space) if stride else kernel,
        pads=spread(padding, space) * 2, ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad),
    )  # fmt: skip


@operator("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_avg_pool(c: Conversion, x: ir.Value, output_size: list[int]) -> ir.Value:
    """Mean of windows of equal size, or of the whole."""
    return _adaptive(c, x, output_size, "GlobalAveragePool", "AveragePool", "ReduceMean")


@operator("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(c: Conversion, x: ir.Value, output_size: list[int]) -> list[ir.Value]:
    """Largest of windows of equal size, or of the whole."""
    return [_adaptive(c, x, output_size, "GlobalMaxPool", "MaxPool", "ReduceMax")]


def _adaptive(
    c: Conversion, x: ir.Value, output_size: list[int], whole: str, windows: str, reduce: str
) -> ir.Value:
    space = c.rank(x) - 2
    out, sizes = spread(output_size, space), [c.static(x, 2 + i) for i in range(space)]
    if all(o == 1 for o in out):
        return c.emit(whole, x)
    if out == sizes:
        return c.emit("Identity", x)
    if all(s % o == 0 for s, o in zip(sizes, out, strict=True)):
        kernel = [s // o for s, o in zip(sizes, out, strict=True)]
        return c.emit(windows, x, kernel_shape=kernel, strides=kernel)
    for axis, (size, count) in enumerate(zip(sizes, out, strict=True), start=2):
        x = _uneven(c, x, axis, size, count, reduce)
    return x


def _uneven(c: Conversion, x: ir.Value, axis: int, size: int, count: int, reduce: str) -> ir.Value:
    """Windows of unequal sizes, one reduction each."""
    axes, parts = c.ints([axis], "axes"), []
    for i in range(count):
        start, end = i * size // count, -(-(i + 1) * size // count)
        window = c.emit("Slice", x, c.ints([start], "start"), c.ints([end], "end"), axes)
        parts.append(c.emit(reduce, window, axes, keepdims=1))
    return c.emit("Concat", *parts, axis=axis)


@operator("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def upsample_nearest(c: Conversion, x: ir.Value, **_: object) -> ir.Value:
    """The nearest position's value."""
    return _resize(c, x, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


@operator("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
def upsample_linear(c: Conversion, x: ir.Value, align_corners: bool, **_: object) -> ir.Value:
    """Linear interpolation between positions."""
    corners = "align_corners" if align_corners else "half_pixel"
    return _resize(c, x, mode="linear", coordinate_transformation_mode=corners)


@operator("upsample_bicubic2d")
def upsample_bicubic(c: Conversion, x: ir.Value, align_corners: bool, **_: object) -> ir.Value:
    """Cubic interpolation between positions."""
    corners = "align_corners" if align_corners else "half_pixel"
    return _resize(c, x, mode="cubic", coordinate_transformation_mode=corners, cubic_coeff_a=-0.75)


def _resize(c: Conversion, x: ir.Value, **attributes: object) -> ir.Value:
    axes = list(range(2, c.rank(x)))
    sizes = c.ints([int(c.out.shape[a]) for a in axes], "output_size")
    return c.emit("Resize", x, None, None, sizes, axes=axes, **attributes)
