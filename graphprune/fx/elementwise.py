"""Elementwise operators: arithmetic, comparison, logic, casts."""

from __future__ import annotations

from functools import reduce
from typing import Any

import onnx_ir as ir
import torch
from torch import fx

from graphprune.frontends.onnx import dtype_name
from graphprune.fx.attributes import torch_dtype
from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter, register_functions
from graphprune.graph import Node

register_functions(
    {
        # arithmetic; rounding is to even in both worlds
        "Abs": torch.abs, "Add": torch.add, "Ceil": torch.ceil, "Exp": torch.exp, "Floor": torch.floor,
        "Log": torch.log, "Mul": torch.mul, "Neg": torch.neg, "Reciprocal": torch.reciprocal,
        "Round": torch.round, "Sign": torch.sign, "Sqrt": torch.sqrt, "Sub": torch.sub,
        "Erf": torch.erf, "IsNaN": torch.isnan, "Where": torch.where,
        # trigonometry
        "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
        "Atan": torch.atan, "Atanh": torch.atanh, "Cos": torch.cos, "Cosh": torch.cosh, "Sin": torch.sin,
        "Sinh": torch.sinh, "Tan": torch.tan, "Tanh": torch.tanh,
        # comparison and logic
        "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Less": torch.lt,
        "LessOrEqual": torch.le, "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
        "Not": torch.logical_not, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
    }
)  # fmt: skip


# -- arithmetic -------------------------------------------------------------------------------------


@converter("Div", arithmetic=True)
def divide(c: Conversion, n: Node, a: fx.Node, b: fx.Node) -> fx.Node:
    """Integers are divided towards zero."""
    if c.is_integer(n, 0):
        return c.emit(torch.div, a, b, rounding_mode="trunc")
    return c.emit(torch.div, a, b)


@converter("Pow", literals=(1,), arithmetic=True)
def power(c: Conversion, n: Node, x: fx.Node, _: None) -> fx.Node:
    """The result has the base's type; a single constant exponent is a number of the code."""
    integral = c.is_integer(n, 0)
    exponent: Any = _one_number(c, n)
    if exponent is None:
        exponent = c.operand(n, 1)
    elif integral and exponent >= 0 and float(exponent).is_integer():
        exponent = int(exponent)
    result = c.emit(torch.pow, x, exponent)
    if integral and not isinstance(exponent, int):
        return c.method("to", result, torch_dtype(c.dtype(n, 0)))
    return result


def _one_number(c: Conversion, n: Node) -> Any:
    """The exponent where it is a constant of one element that adds no axis to the result, else None."""
    base, exponent = n.input(0), n.input(1)
    if base is None or exponent is None or exponent.size != 1 or exponent.rank > max(base.rank, 0):
        return None
    array = c.literal(n, 1) if c.is_literal(n, 1) else None
    return None if array is None else array.item()


@converter("Mod", arithmetic=True)
def modulo(c: Conversion, n: Node, a: fx.Node, b: fx.Node) -> fx.Node:
    """fmod=1: the sign of the dividend, as C's fmod; else of the divisor."""
    return c.emit(torch.fmod if n.attr("fmod", 0) else torch.remainder, a, b)


@converter("Sum", arithmetic=True)
def total(c: Conversion, n: Node, *operands: fx.Node) -> fx.Node:
    """The sum of any number of operands."""
    return reduce(lambda a, b: c.emit(torch.add, a, b), operands)


@converter("Mean", arithmetic=True)
def mean(c: Conversion, n: Node, *operands: fx.Node) -> fx.Node:
    """The mean of any number of operands."""
    return c.emit(torch.div, total(c, n, *operands), len(operands))


@converter("Max", arithmetic=True)
def maximum(c: Conversion, n: Node, *operands: fx.Node) -> fx.Node:
    """The largest of any number of operands."""
    return reduce(lambda a, b: c.emit(torch.maximum, a, b), operands)


@converter("Min", arithmetic=True)
def minimum(c: Conversion, n: Node, *operands: fx.Node) -> fx.Node:
    """The smallest of any number of operands."""
    return reduce(lambda a, b: c.emit(torch.minimum, a, b), operands)


@converter("BitShift", arithmetic=True)
def bit_shift(c: Conversion, n: Node, a: fx.Node, b: fx.Node) -> fx.Node:
    """Shift left or right; unsigned types that torch lacks would not lose their upper bits."""
    _refuse_widened(c, n)
    left = n.attr("direction") == "LEFT"
    return c.emit(torch.bitwise_left_shift if left else torch.bitwise_right_shift, a, b)


@converter("BitwiseNot", arithmetic=True)
def bitwise_not(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Every bit turned."""
    _refuse_widened(c, n)
    return c.emit(torch.bitwise_not, x)


@converter("IsInf")
def is_infinite(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Infinities of the signs that the attributes name."""
    negative, positive = n.attr("detect_negative", 1), n.attr("detect_positive", 1)
    if negative and positive:
        return c.emit(torch.isinf, x)
    if not negative and not positive:
        return c.emit(torch.zeros_like, x, dtype=torch.bool)
    return c.emit(torch.isposinf if positive else torch.isneginf, x)


# -- types ------------------------------------------------------------------------------------------


@converter("Cast", arithmetic=True)
def cast(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Every float type is the module's own, so that a cast between floats is nothing."""
    return _cast(c, n, x, dtype_name(ir.DataType(n.attr("to"))))


@converter("CastLike", literals=(1,), arithmetic=True)
def cast_like(c: Conversion, n: Node, x: fx.Node, _: None) -> fx.Node:
    """Cast to the type of the other operand."""
    return _cast(c, n, x, c.dtype(n, 1))


def _cast(c: Conversion, n: Node, x: fx.Node, name: str) -> fx.Node:
    target = torch_dtype(name)
    if target is None:
        raise c.refuse(n, f"PyTorch cannot compute in {name or 'an unknown type'}")
    if target == torch.float32:
        return x if torch_dtype(c.dtype(n, 0)) == torch.float32 else c.to_float(x)
    return c.method("to", x, target)


def _refuse_widened(c: Conversion, n: Node) -> None:
    if c.dtype(n, 0) in ("uint16", "uint32", "uint64"):
        raise c.refuse(n, f"PyTorch has no {c.dtype(n, 0)} arithmetic")
