"""BatchNormalization in inference -> the weights of the operator before it, or an operator of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.rewriting.context import Context, Refused, attribute, data, operand, operator, single_reader
from graphprune.rewriting.registry import rewrite_rule

EPSILON = 1e-5
"""ONNX's default."""


@rewrite_rule("fold-batchnorm", replaces=("BatchNormalization",))
def fold_batchnorm(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """Conv, ConvTranspose or Gemm, then BatchNormalization -> the first alone, with other weights.

    Where the unnormalised result is read elsewhere too, nothing is folded. Weights that others read get a
    private copy.
    """
    factor, shift = _affine(node, context)
    x = data(node)
    producer = x.producer()
    if producer is None or operator(producer) not in _SCALED:
        raise Refused("no Conv, ConvTranspose or Gemm comes before it")
    if not single_reader(x):
        raise Refused(f"{x.name!r}, before the normalisation, is read elsewhere too")
    source, bias = operand(producer, 1), operand(producer, 2)
    weight = context.array(source)
    old_bias = np.zeros(1) if bias is None else context.array(bias)
    if source is None or weight is None or old_bias is None:
        raise Refused(f"the weights of {producer.name!r} are computed at run time")
    if _quantized(source):
        raise Refused(f"the weights of {producer.name!r} are quantised")
    dtype = weight.dtype
    gemm = operator(producer) == "Gemm"
    alpha_beta = {"alpha": attribute(producer, "alpha", 1.0), "beta": 1.0} if gemm else {}
    before = old_bias.astype(np.float64).reshape(-1) * (attribute(producer, "beta", 1.0) if gemm else 1.0)
    if before.size not in (1, factor.size):
        raise Refused(f"the bias of {producer.name!r} differs from row to row")
    scaled = _SCALED[operator(producer)](producer, weight.astype(np.float64), factor)
    after = before * factor + shift
    new_weight = context.instead(source, scaled.astype(dtype))
    if bias is None or old_bias.size != after.size:
        new_bias = context.constant(after.astype(dtype), "bias")
    else:
        new_bias = context.instead(bias, after.astype(dtype).reshape(old_bias.shape))
    attrs: dict[str, Any] = {k: a.value for k, a in producer.attributes.items()} | alpha_beta
    folded = context.op(producer.op_type, producer.inputs[0], new_weight, new_bias, **attrs)
    made = folded.producer()
    assert made is not None
    made.name = producer.name  # which goes, as nobody else reads it
    made.metadata_props.update(producer.metadata_props)
    return [folded]


@rewrite_rule("scale-batchnorm", replaces=("BatchNormalization",))
def scale_batchnorm(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """A BatchNormalization that cannot be folded -> a 1x1 depthwise Conv, or Mul and Add.

    The convolution for ``[N, C, ...]`` with one to three spatial axes, where the target has Conv.
    """
    factor, shift = _affine(node, context)
    x = data(node)
    dtype = context.float_type(x)
    rank, channels = len(context.sizes(x)), factor.size
    factor, shift = factor.astype(dtype), shift.astype(dtype)
    if 3 <= rank <= 5 and context.has("Conv"):
        kernel = context.constant(factor.reshape(channels, 1, *[1] * (rank - 2)), "weight")
        window = [1] * (rank - 2)
        return [
            context.op(
                "Conv", x, kernel, context.constant(shift, "bias"), group=channels, kernel_shape=window
            )
        ]
    tail = (channels, *[1] * (rank - 2))
    scaled = context.op("Mul", x, context.constant(factor.reshape(tail), "weight"))
    return [context.op("Add", scaled, context.constant(shift.reshape(tail), "bias"))]


def _affine(node: ir.Node, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """``y = factor * x + shift`` per channel, float64 ``[C]``. Raises Refused for other than inference."""
    if attribute(node, "training_mode", 0) or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        raise Refused("it is in training mode: its statistics come from the batch")
    if attribute(node, "spatial", 1) == 0:
        raise Refused("its statistics differ from pixel to pixel (spatial=0)")
    arrays = [context.array(operand(node, i)) for i in range(1, 5)]
    found = [a.astype(np.float64).reshape(-1) for a in arrays if a is not None]
    if len(found) < 4:
        raise Refused("its parameters are computed at run time")
    scale, shift, mean, variance = found
    factor = scale / np.sqrt(variance + attribute(node, "epsilon", EPSILON))
    return factor, shift - mean * factor


def _conv(node: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """``[C, C_in / groups, ...]``."""
    scaled: np.ndarray = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled


def _conv_transpose(node: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """``[C_in, C / groups, ...]``: the inputs of one group after the other."""
    groups = attribute(node, "group", 1)
    apart = weight.reshape(groups, -1, *weight.shape[1:])
    scaled: np.ndarray = apart * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return scaled.reshape(weight.shape)


def _gemm(node: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """``[C_in, C]``, or the other way round with transB."""
    scaled: np.ndarray = weight * (factor[:, None] if attribute(node, "transB", 0) else factor)
    return scaled


_SCALED: dict[str, Callable[[ir.Node, np.ndarray, np.ndarray], np.ndarray]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
}
"""Operator -> its weight with every output channel times a factor ``[C]``."""


def _quantized(weight: ir.Value) -> bool:
    producer = weight.producer()
    return producer is not None and "DequantizeLinear" in producer.op_type
