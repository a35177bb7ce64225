"""Activation functions, each one elementwise."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter, register_functions
from graphprune.graph import Node

UNBOUNDED = 3e38
"""Clip bounds beyond this (float32's largest value, infinities) bound nothing."""

register_functions(
    {
        "Relu": F.relu, "Sigmoid": torch.sigmoid, "Softplus": F.softplus, "Softsign": F.softsign,
        "HardSwish": F.hardswish, "Mish": F.mish,
    }
)  # fmt: skip


@converter("Clip", literals=(1, 2), arithmetic=True)
def clip(c: Conversion, n: Node, x: fx.Node, *_: None) -> fx.Node:
    """hardtanh between two float bounds (its backward is twice as fast as clamp's), Relu above 0."""
    if not (c.is_literal(n, 1) and c.is_literal(n, 2)):
        low, high = c.operand(n, 1), c.operand(n, 2)
        x = x if low is None else c.emit(torch.maximum, x, low)
        return x if high is None else c.emit(torch.minimum, x, high)
    least, most = (_bound(n.attr(k), c.literal(n, i)) for i, k in ((1, "min"), (2, "max")))
    if least is None and most is None:
        return x
    if c.is_integer(n, 0) or most is None or least is None or least > most:
        if least == 0 and most is None:
            return c.emit(F.relu, x)
        return c.emit(torch.clamp, x, least, most)
    return c.emit(F.hardtanh, x, least, most)


def _bound(attribute: float | None, array: np.ndarray | None) -> float | None:
    bound = attribute if array is None else array.reshape(-1)[0].item()
    return None if bound is None or abs(bound) > UNBOUNDED else bound


@converter("PRelu")
def prelu(c: Conversion, n: Node, x: fx.Node, slope: fx.Node) -> fx.Node:
    """F.prelu where there is one slope, or one per channel; else the definition, broadcast."""
    data, slopes = (v.shape if v is not None else None for v in n.inputs[:2])
    if data is not None and slopes is not None and not c.is_integer(n, 0):
        padded = (1,) * (len(data) - len(slopes)) + slopes
        one_per_channel = len(data) > 1 and padded == (1, data[1]) + (1,) * (len(data) - 2)
        if one_per_channel or math.prod(slopes) == 1:
            return c.emit(F.prelu, x, c.method("reshape", slope, -1))
    return c.emit(torch.where, c.emit(torch.lt, x, 0), c.emit(torch.mul, x, slope), x)


@converter("LeakyRelu")
def leaky_relu(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """x, or alpha x below 0."""
    return c.emit(F.leaky_relu, x, n.attr("alpha", 0.01))


@converter("ThresholdedRelu")
def thresholded_relu(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """x above alpha, else 0."""
    return c.emit(F.threshold, x, n.attr("alpha", 1.0), 0.0)


@converter("Elu")
def elu(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """x, or alpha (exp(x) - 1) below 0."""
    return c.emit(F.elu, x, n.attr("alpha", 1.0))


@converter("Celu")
def celu(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    return c.emit(F.celu, x, n.attr("alpha", 1.0))


@converter("Selu")
def selu(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """gamma times Elu; F.selu has the default constants built in."""
    alpha = n.attr("alpha", 1.67326319217681884765625)
    gamma = n.attr("gamma", 1.05070102214813232421875)
    return c.emit(torch.mul, c.emit(F.elu, x, alpha), gamma)


@converter("HardSigmoid")
def hard_sigmoid(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """alpha x + beta between 0 and 1."""
    alpha, beta = n.attr("alpha", 0.2), n.attr("beta", 0.5)
    if beta == 0.5 and math.isclose(alpha, 1 / 6, rel_tol=1e-6):
        return c.emit(F.hardsigmoid, x)
    line = c.emit(torch.add, c.emit(torch.mul, x, alpha), beta)
    return c.emit(F.hardtanh, line, 0.0, 1.0)


@converter("Shrink", arithmetic=True)
def shrink(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """x moved towards 0 by ``bias`` outside [-lambd, lambd], 0 inside."""
    bias, limit = n.attr("bias", 0.0), n.attr("lambd", 0.5)
    moved = c.emit(torch.sub, x, c.emit(torch.mul, c.emit(torch.sign, x), bias))
    outside = c.emit(torch.gt, c.emit(torch.abs, x), limit)
    return c.emit(torch.mul, moved, outside)


@converter("Gelu", "com.microsoft::Gelu")
def gelu(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """x Phi(x), or its tanh approximation."""
    return c.emit(F.gelu, x, approximate=n.attr("approximate", "none"))


@converter("com.microsoft::FastGelu", "com.microsoft::BiasGelu")
def bias_gelu(c: Conversion, n: Node, x: fx.Node, bias: fx.Node | None = None) -> fx.Node:
    """Gelu of x + bias; FastGelu is the tanh approximation."""
    x = x if bias is None else c.emit(torch.add, x, bias)
    return c.emit(F.gelu, x, approximate="tanh" if n.op.endswith("FastGelu") else "none")


@converter("Swish", "com.microsoft::QuickGelu")
def swish(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """x sigmoid(alpha x)."""
    alpha = n.attr("alpha", 1.0 if n.op == "Swish" else 1.702)
    if alpha == 1.0:
        return c.emit(F.silu, x)
    return c.emit(torch.mul, x, c.emit(torch.sigmoid, c.emit(torch.mul, x, alpha)))
