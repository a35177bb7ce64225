"""Elementwise operators of one tensor: activations, rounding, casts, and what passes a tensor on."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from graphprune.frontends.torch.conversion import Conversion, element_type
from graphprune.frontends.torch.registry import operator

Operand = ir.Value | float

_UNARY = {
    "abs": "Abs", "ceil": "Ceil", "cos": "Cos", "erf": "Erf", "exp": "Exp", "floor": "Floor", "log": "Log",
    "mish": "Mish", "neg": "Neg", "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round",
    "selu": "Selu", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "softsign": "Softsign", "sqrt": "Sqrt",
    "tan": "Tan", "tanh": "Tanh", "hardswish": "HardSwish", "logical_not": "Not",
    "isnan": "IsNaN", "isinf": "IsInf",
}  # fmt: skip


def _register_unary(name: str, op: str) -> None:
    def convert(c: Conversion, x: ir.Value) -> ir.Value:
        return c.emit(op, x)

    convert.__doc__ = f"ONNX ``{op}``."
    operator(name, f"{name}_")(convert)


for _name, _op in _UNARY.items():
    _register_unary(_name, _op)


@operator("rsqrt")
def rsqrt(c: Conversion, x: ir.Value) -> ir.Value:
    """1 / sqrt(x)."""
    return c.emit("Reciprocal", c.emit("Sqrt", x))


@operator("square")
def square(c: Conversion, x: ir.Value) -> ir.Value:
    """x * x."""
    return c.emit("Mul", x, x)


@operator("log1p")
def log1p(c: Conversion, x: ir.Value) -> ir.Value:
    """log(1 + x)."""
    return c.emit("Log", c.emit("Add", x, c.number(1, c.out.dtype, "one")))


@operator("silu", "silu_")
def silu(c: Conversion, x: ir.Value) -> ir.Value:
    """x times its sigmoid."""
    return c.emit("Mul", x, c.emit("Sigmoid", x))


@operator("gelu")
def gelu(c: Conversion, x: ir.Value, approximate: str) -> ir.Value:
    """Gaussian error linear unit, exact or by tanh."""
    return c.emit("Gelu", x, approximate=approximate)


@operator("relu6", "relu6_")
def relu6(c: Conversion, x: ir.Value) -> ir.Value:
    """x between 0 and 6."""
    return hardtanh(c, x, 0, 6)


@operator("hardtanh", "hardtanh_")
def hardtanh(c: Conversion, x: ir.Value, min_val: float, max_val: float) -> ir.Value:
    """x between two bounds."""
    dtype = c.out.dtype
    return c.emit("Clip", x, c.number(min_val, dtype, "min"), c.number(max_val, dtype, "max"))


@operator("clamp", "clamp_", "clip")
def clamp(c: Conversion, x: ir.Value, min: Operand | None, max: Operand | None) -> ir.Value:
    """x between bounds, each of which may be absent or a tensor."""
    dtype = c.out.dtype
    y = c.cast(x, dtype)
    if min is not None:
        y = c.emit("Max", y, c.operand(min, dtype, "min"))
    return y if max is None else c.emit("Min", y, c.operand(max, dtype, "max"))


@operator("clamp_min", "clamp_min_")
def clamp_min(c: Conversion, x: ir.Value, min: Operand) -> ir.Value:
    """x, at least ``min``."""
    return clamp(c, x, min, None)


@operator("clamp_max", "clamp_max_")
def clamp_max(c: Conversion, x: ir.Value, max: Operand) -> ir.Value:
    """x, at most ``max``."""
    return clamp(c, x, None, max)


@operator("hardsigmoid", "hardsigmoid_")
def hardsigmoid(c: Conversion, x: ir.Value) -> ir.Value:
    """x / 6 + 1/2 between 0 and 1."""
    return c.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@operator("leaky_relu", "leaky_relu_")
def leaky_relu(c: Conversion, x: ir.Value, negative_slope: float) -> ir.Value:
    """x, negative numbers times a slope."""
    return c.emit("LeakyRelu", x, alpha=float(negative_slope))


@operator("elu", "elu_")
def elu(c: Conversion, x: ir.Value, alpha: float, scale: float, input_scale: float) -> ir.Value:
    """Exponential linear unit."""
    if scale != 1 or input_scale != 1:
        raise c.refuse("its scales are not 1")
    return c.emit("Elu", x, alpha=float(alpha))


@operator("celu", "celu_")
def celu(c: Conversion, x: ir.Value, alpha: float) -> ir.Value:
    """Continuously differentiable exponential linear unit."""
    return c.emit("Celu", x, alpha=float(alpha))


@operator("softplus")
def softplus(c: Conversion, x: ir.Value, beta: float, **_: Any) -> ir.Value:
    """log(1 + exp(beta x)) / beta."""
    if beta == 1:
        return c.emit("Softplus", x)
    scale = c.number(beta, c.out.dtype, "beta")
    return c.emit("Div", c.emit("Softplus", c.emit("Mul", x, scale)), scale)


@operator("log_sigmoid")
def log_sigmoid(c: Conversion, x: ir.Value) -> ir.Value:
    """log of the sigmoid."""
    return c.emit("Neg", c.emit("Softplus", c.emit("Neg", x)))


@operator("prelu")
def prelu(c: Conversion, x: ir.Value, weight: ir.Value) -> ir.Value:
    """x, negative numbers times a slope per channel."""
    if c.rank(x) > 2:
        weight = c.emit("Unsqueeze", weight, c.ints(range(1, c.rank(x) - 1), "axes"))
    return c.emit("PRelu", x, weight)


@operator("glu")
def glu(c: Conversion, x: ir.Value, dim: int) -> ir.Value:
    """The first half times the sigmoid of the second."""
    axis = c.axis(x, dim)
    half = c.static(x, axis) // 2
    a, b = c.emit_many("Split", [x, c.ints([half, half], "halves")], 2, axis=axis)
    return c.emit("Mul", a, c.emit("Sigmoid", b))


@operator(
    "alias", "clone", "contiguous", "detach", "detach_", "dropout", "dropout_", "feature_dropout", "alpha_dropout",
    "feature_alpha_dropout", "lift_fresh_copy", "lift_fresh", "positive", "resolve_conj", "resolve_neg",
)  # fmt: skip
def same(c: Conversion, x: ir.Value, **_: Any) -> ir.Value:
    """The tensor itself; dropout does nothing in evaluation mode."""
    return x


@operator("to", "_to_copy", "type_as", "float", "half", "bool", "int", "long", "double")
def to(c: Conversion, x: ir.Value, **_: Any) -> ir.Value:
    """The tensor in the type of the output."""
    if c.fake(x).dtype == c.out.dtype:
        return x
    return c.emit("Cast", x, to=int(element_type(c.out.dtype)))


@operator("bitwise_not")
def bitwise_not(c: Conversion, x: ir.Value) -> ir.Value:
    """Logical not, for booleans."""
    if c.out.dtype != torch.bool:
        raise c.refuse("it works on bits of integers")
    return c.emit("Not", x)
