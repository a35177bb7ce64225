"""Activations -> the simpler operators that they are defined by (ONNX and onnxruntime operator documentation)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from graphprune.rewriting.context import Context, Refused, attribute, data, operand, operator
from graphprune.rewriting.registry import rewrite_rule


@rewrite_rule("hard-swish", replaces=("HardSwish",))
def hard_swish(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """HardSwish(x) -> x * HardSigmoid(x), or x * Clip(x + 3, 0, 6) / 6 where HardSigmoid is lacking too."""
    x = data(node)
    context.float_type(x)
    if context.has("HardSigmoid"):
        return [context.op("Mul", x, context.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))]
    gate = _clip(context, context.op("Add", x, context.scalar(3, x)), 6, x)
    return [context.op("Mul", context.op("Mul", x, gate), context.scalar(1 / 6, x))]


@rewrite_rule("hard-sigmoid", replaces=("HardSigmoid",))
def hard_sigmoid(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """HardSigmoid(x) -> Clip(alpha * x + beta, 0, 1)."""
    x = data(node)
    line = context.op("Mul", x, context.scalar(attribute(node, "alpha", 0.2), x))
    return [_clip(context, context.op("Add", line, context.scalar(attribute(node, "beta", 0.5), x)), 1, x)]


@rewrite_rule("swish", replaces=("Swish", "com.microsoft::QuickGelu"))
def swish(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """Swish(x) and QuickGelu(x) -> x * Sigmoid(alpha * x)."""
    x = data(node)
    alpha = attribute(node, "alpha", 1.0 if operator(node) == "Swish" else 1.702)
    scaled = x if alpha == 1 else context.op("Mul", x, context.scalar(alpha, x))
    return [context.op("Mul", x, context.op("Sigmoid", scaled))]


@rewrite_rule("mish", replaces=("Mish",))
def mish(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """Mish(x) -> x * Tanh(Softplus(x))."""
    x = data(node)
    return [context.op("Mul", x, context.op("Tanh", context.op("Softplus", x)))]


@rewrite_rule(
    "gelu", replaces=("Gelu", "com.microsoft::Gelu", "com.microsoft::BiasGelu", "com.microsoft::FastGelu")
)
def gelu(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """Gelu(x) -> x / 2 * (1 + Erf(x / sqrt 2)); its tanh form, where the node is one, with Tanh."""
    x, bias, op = data(node), operand(node, 1), operator(node)
    if bias is not None:
        x = context.op("Add", x, bias)
    first = data(node)  # whose type is known
    if op.endswith("FastGelu") or attribute(node, "approximate", "none") == "tanh":
        cube = context.op("Mul", context.op("Mul", x, x), x)
        inner = context.op("Add", x, context.op("Mul", cube, context.scalar(0.044715, first)))
        bent = context.op("Tanh", context.op("Mul", inner, context.scalar(math.sqrt(2 / math.pi), first)))
    else:
        if context.opset < 9:
            raise Refused(f"its replacement needs Erf, which opset {context.opset} lacks")
        bent = context.op("Erf", context.op("Mul", x, context.scalar(math.sqrt(0.5), first)))
    half = context.op("Mul", x, context.scalar(0.5, first))
    return [context.op("Mul", half, context.op("Add", bent, context.scalar(1, first)))]


def _clip(context: Context, value: ir.Value, high: float, like: ir.Value) -> ir.Value:
    """Clip to [0, high]: attributes before opset 11, inputs from there on."""
    if context.opset < 11:
        return context.op("Clip", value, min=0.0, max=float(high))
    return context.op("Clip", value, context.scalar(0, like), context.scalar(high, like))
