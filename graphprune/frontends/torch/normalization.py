"""Normalisations and softmax."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.registry import operator


def _filled(c: Conversion, given: ir.Value | None, size: int, value: float, what: str) -> ir.Value:
    """A parameter, or a constant in its place."""
    return given if given is not None else c.constant(np.full(size, value), what, c.out.dtype)


@operator("batch_norm")
def batch_norm(
    c: Conversion, x: ir.Value, weight: ir.Value | None, bias: ir.Value | None, running_mean: ir.Value | None,
    running_var: ir.Value | None, training: bool, momentum: float, eps: float, **_: object,
) -> ir.Value:  # fmt: skip
    """Batch normalisation by its running statistics."""
    if running_mean is None or running_var is None or training:
        if c.fake(x).shape[0] != 1:
            raise c.refuse("it normalises by the statistics of the batch; give it running statistics")
        return _standardised(c, x, weight, bias, eps)
    size = c.shape(x)[1]
    scale, shift = _filled(c, weight, size, 1, "weight"), _filled(c, bias, size, 0, "bias")
    return c.emit("BatchNormalization", x, scale, shift, running_mean, running_var, epsilon=float(eps))


def _standardised(
    c: Conversion, x: ir.Value, weight: ir.Value | None, bias: ir.Value | None, eps: float
) -> ir.Value:
    """A single sample (or a weight, in standardised convolutions) by its own statistics."""
    rank, dtype = c.rank(x), c.out.dtype
    over, inner = c.ints([0, *range(2, rank)], "over"), c.ints([0, *range(2, rank)], "axes")
    centred = c.emit("Sub", x, c.emit("ReduceMean", x, over, keepdims=1))
    variance = c.emit("ReduceMean", c.emit("Mul", centred, centred), over, keepdims=1)
    y = c.emit("Div", centred, c.emit("Sqrt", c.emit("Add", variance, c.number(eps, dtype, "eps"))))
    if weight is not None:
        y = c.emit("Mul", y, c.emit("Unsqueeze", weight, inner))
    return y if bias is None else c.emit("Add", y, c.emit("Unsqueeze", bias, inner))


@operator("instance_norm")
def instance_norm(
    c: Conversion, x: ir.Value, weight: ir.Value | None, bias: ir.Value | None, use_input_stats: bool,
    eps: float, running_mean: ir.Value | None = None, running_var: ir.Value | None = None, **_: object,
) -> ir.Value:  # fmt: skip
    """Normalisation of every channel of every sample; by running statistics where it keeps them."""
    size = c.shape(x)[1]
    scale, shift = _filled(c, weight, size, 1, "weight"), _filled(c, bias, size, 0, "bias")
    if not use_input_stats and running_mean is not None and running_var is not None:
        return c.emit("BatchNormalization", x, scale, shift, running_mean, running_var, epsilon=float(eps))
    return c.emit("InstanceNormalization", x, scale, shift, epsilon=float(eps))


@operator("group_norm")
def group_norm(
    c: Conversion, x: ir.Value, num_groups: int, weight: ir.Value | None, bias: ir.Value | None, eps: float,
    **_: object,
) -> ir.Value:  # fmt: skip
    """Normalisation of groups of channels."""
    size = c.shape(x)[1]
    scale, shift = _filled(c, weight, size, 1, "weight"), _filled(c, bias, size, 0, "bias")
    return c.emit("GroupNormalization", x, scale, shift, num_groups=num_groups, epsilon=float(eps))


@operator("layer_norm")
def layer_norm(
    c: Conversion, x: ir.Value, normalized_shape: list[int], weight: ir.Value | None, bias: ir.Value | None,
    eps: float, **_: object,
) -> ir.Value:  # fmt: skip
    """Normalisation over the last axes."""
    scale = weight
    if scale is None:
        scale = c.constant(np.ones(normalized_shape), "weight", c.out.dtype)
    return c.emit(
        "LayerNormalization", x, scale, bias, axis=c.rank(x) - len(normalized_shape), epsilon=float(eps)
    )


@operator("rms_norm")
def rms_norm(
    c: Conversion, x: ir.Value, normalized_shape: list[int], weight: ir.Value | None, eps: float | None
) -> ir.Value:
    """Division by the root mean square over the last axes."""
    import torch

    scale = weight
    if scale is None:
        scale = c.constant(np.ones(normalized_shape), "weight", c.out.dtype)
    epsilon = torch.finfo(c.out.dtype).eps if eps is None else eps
    return c.emit(
        "RMSNormalization", x, scale, axis=c.rank(x) - len(normalized_shape), epsilon=float(epsilon)
    )


@operator("_weight_norm", "_weight_norm_interface")
def weight_norm(c: Conversion, v: ir.Value, g: ir.Value, dim: int = 0) -> ir.Value:
    """A weight of direction v and length g: computed once, then stored."""
    axes = c.ints([a for a in range(c.rank(v)) if a != dim % c.rank(v)], "axes")
    length = c.emit("ReduceL2", v, axes, keepdims=1)
    return c.emit("Mul", v, c.emit("Div", g, length))


@operator("softmax", "_softmax", "_safe_softmax")
def softmax(c: Conversion, x: ir.Value, dim: int, **_: object) -> ir.Value:
    """Softmax along an axis."""
    return c.emit("Softmax", c.cast(x, c.out.dtype), axis=c.axis(x, dim))


@operator("log_softmax", "_log_softmax")
def log_softmax(c: Conversion, x: ir.Value, dim: int, **_: object) -> ir.Value:
    """Logarithm of the softmax along an axis."""
    return c.emit("LogSoftmax", c.cast(x, c.out.dtype), axis=c.axis(x, dim))
