"""Convolutions, 1-D to 3-D."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.registry import operator


def spread(numbers: int | Sequence[int], count: int) -> list[int]:
    """PyTorch's shorthand: one number stands for every axis of space."""
    found = [numbers] if isinstance(numbers, int) else list(numbers)
    return found * count if len(found) == 1 else found


@operator("conv1d", "conv2d", "conv3d")
def conv(
    c: Conversion, x: ir.Value, weight: ir.Value, bias: ir.Value | None, stride: list[int],
    padding: list[int] | str, dilation: list[int], groups: int,
) -> ir.Value:  # fmt: skip
    """Convolution; ``same`` and ``valid`` padding become numbers."""
    space = c.rank(weight) - 2
    kernel, rates = c.shape(weight)[2:], spread(dilation, space)
    if isinstance(padding, str):
        total = [r * (k - 1) if padding == "same" else 0 for r, k in zip(rates, kernel, strict=True)]
        pads = [t // 2 for t in total] + [t - t // 2 for t in total]
    else:
        pads = spread(padding, space) * 2
    return c.emit(
        "Conv", _batched(c, x, space), weight, bias, strides=spread(stride, space), pads=pads, dilations=rates,
        group=groups, kernel_shape=kernel,
    )  # fmt: skip


@operator("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    c: Conversion, x: ir.Value, weight: ir.Value, bias: ir.Value | None, stride: list[int],
    padding: list[int], output_padding: list[int], groups: int, dilation: list[int],
) -> ir.Value:  # fmt: skip
    """Transposed convolution."""
    space = c.rank(weight) - 2
    return c.emit(
        "ConvTranspose", _batched(c, x, space), weight, bias, strides=spread(stride, space),
        pads=spread(padding, space) * 2, output_padding=spread(output_padding, space),
        dilations=spread(dilation, space), group=groups, kernel_shape=c.shape(weight)[2:],
    )  # fmt: skip


@operator("convolution")
def convolution(
    c: Conversion, x: ir.Value, weight: ir.Value, bias: ir.Value | None, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int,
) -> ir.Value:  # fmt: skip
    """Either of them, as decomposed graphs have it."""
    if transposed:
        return conv_transpose(c, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(c, x, weight, bias, stride, padding, dilation, groups)


def _batched(c: Conversion, x: ir.Value, space: int) -> ir.Value:
    if c.rank(x) != space + 2:
        raise c.refuse("its input has no batch axis")
    return x
