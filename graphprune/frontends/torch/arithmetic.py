"""Elementwise operators of several tensors: arithmetic, comparisons, logic, choices."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.registry import operator

Operand = ir.Value | float

_BINARY = {
    "mul": "Mul",
    "__and__": "And",
    "__or__": "Or",
    "minimum": "Min",
    "maximum": "Max",
    "bitwise_and": "And",
    "bitwise_or": "Or",
}
_COMPARE = {"eq": "Equal", "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual"}
_LOGIC = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}


def _common(*operands: Any) -> torch.dtype:
    """The type in which PyTorch computes with these operands."""
    found = operands[0]
    for other in operands[1:]:
        dtype = torch.result_type(found, other)
        found = (
            torch.empty((), dtype=dtype, device="meta") if dtype != getattr(found, "dtype", None) else found
        )
    return found.dtype  # type: ignore[no-any-return]


def _promoted(c: Conversion, x: Operand, other: Operand) -> torch.dtype:
    return _common(*(c.fake(v) if isinstance(v, ir.Value) else v for v in (x, other)))


def _pair(c: Conversion, op: str, x: Operand, other: Operand, dtype: torch.dtype) -> ir.Value:
    return c.emit(op, c.operand(x, dtype, "x"), c.operand(other, dtype))


def _register_binary(name: str, op: str, kind: str) -> None:
    def convert(c: Conversion, x: Operand, other: Operand) -> ir.Value:
        dtype = {"binary": c.out.dtype, "logic": torch.bool}.get(kind) or _promoted(c, x, other)
        if dtype == torch.bool and op == "Mul":
            return _pair(c, "And", x, other, dtype)
        if op in ("And", "Or") and dtype != torch.bool:
            raise c.refuse("it works on bits of integers")
        return _pair(c, op, x, other, dtype)

    convert.__doc__ = f"ONNX ``{op}``."
    operator(name, f"{name}_")(convert)


for _names, _kind in ((_BINARY, "binary"), (_COMPARE, "compare"), (_LOGIC, "logic")):
    for _name, _op in _names.items():
        _register_binary(_name, _op, _kind)


@operator("ne", "ne_")
def ne(c: Conversion, x: Operand, other: Operand) -> ir.Value:
    """Not equal."""
    return c.emit("Not", _pair(c, "Equal", x, other, _promoted(c, x, other)))


@operator("add", "add_")
def add(c: Conversion, x: Operand, other: Operand, alpha: float = 1) -> ir.Value:
    """x + alpha other."""
    return _pair(c, "Add", x, _times(c, other, alpha), c.out.dtype)


@operator("sub", "sub_", "subtract")
def sub(c: Conversion, x: Operand, other: Operand, alpha: float = 1) -> ir.Value:
    """x - alpha other."""
    return _pair(c, "Sub", x, _times(c, other, alpha), c.out.dtype)


@operator("rsub")
def rsub(c: Conversion, x: Operand, other: Operand, alpha: float = 1) -> ir.Value:
    """other - alpha x."""
    return _pair(c, "Sub", other, _times(c, x, alpha), c.out.dtype)


def _times(c: Conversion, x: Operand, alpha: float) -> Operand:
    if alpha == 1:
        return x
    if not isinstance(x, ir.Value):
        return x * alpha
    dtype = c.out.dtype
    return c.emit("Mul", c.cast(x, dtype), c.number(alpha, dtype, "alpha"))


@operator("div", "div_", "true_divide", "floor_divide")
def div(c: Conversion, x: Operand, other: Operand, rounding_mode: str | None = None) -> ir.Value:
    """x / other, rounded on request."""
    dtype = c.out.dtype
    if not dtype.is_floating_point:
        raise c.refuse("it divides integers")
    y = _pair(c, "Div", x, other, dtype)
    floor = rounding_mode == "floor" or str(c.current.target).startswith("aten.floor_divide")
    if rounding_mode == "trunc":
        raise c.refuse("it rounds towards zero")
    return c.emit("Floor", y) if floor else y


@operator("remainder")
def remainder(c: Conversion, x: Operand, other: Operand) -> ir.Value:
    """x - other floor(x / other)."""
    dtype = c.out.dtype
    if not dtype.is_floating_point:
        return _pair(c, "Mod", x, other, dtype)
    a, b = c.operand(x, dtype, "x"), c.operand(other, dtype)
    return c.emit("Sub", a, c.emit("Mul", b, c.emit("Floor", c.emit("Div", a, b))))


@operator("pow", "pow_")
def power(c: Conversion, x: Operand, exponent: Operand) -> ir.Value:
    """x to the power of the exponent."""
    return _pair(c, "Pow", x, exponent, c.out.dtype)


@operator("addcmul")
def addcmul(c: Conversion, x: ir.Value, tensor1: ir.Value, tensor2: ir.Value, value: float) -> ir.Value:
    """x + value tensor1 tensor2."""
    product = c.emit("Mul", tensor1, tensor2)
    if value != 1:
        product = c.emit("Mul", product, c.number(value, c.out.dtype))
    return c.emit("Add", x, product)


@operator("lerp")
def lerp(c: Conversion, x: ir.Value, end: ir.Value, weight: Operand) -> ir.Value:
    """x + weight (end - x)."""
    return c.emit("Add", x, c.emit("Mul", c.operand(weight, c.out.dtype, "weight"), c.emit("Sub", end, x)))


@operator("where")
def where(c: Conversion, condition: ir.Value, x: Operand, other: Operand) -> ir.Value:
    """x where the condition holds, else the other."""
    dtype = c.out.dtype
    return c.emit("Where", condition, c.operand(x, dtype, "x"), c.operand(other, dtype))


@operator("masked_fill", "masked_fill_")
def masked_fill(c: Conversion, x: ir.Value, mask: ir.Value, value: Operand) -> ir.Value:
    """``value`` where the mask holds."""
    return c.emit("Where", c.cast(mask, torch.bool), c.operand(value, c.out.dtype, "value"), x)
