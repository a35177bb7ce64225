"""Reductions: sums, means, extremes, norms, positions of extremes."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.registry import operator

Dims = int | list[int] | None
_REDUCE = {
    "mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin", "logsumexp": "ReduceLogSumExp",
}  # fmt: skip


def _axes(c: Conversion, x: ir.Value, dim: Dims) -> list[int]:
    dims = range(c.rank(x)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return sorted(c.axis(x, d) for d in dims)


def reduced(c: Conversion, op: str, x: ir.Value, dim: Dims, keepdim: bool) -> ir.Value:
    """One ONNX reduction."""
    return c.emit(op, x, c.ints(_axes(c, x, dim), "dim"), keepdims=int(keepdim))


def _register(name: str, op: str) -> None:
    def convert(c: Conversion, x: ir.Value, dim: Dims = None, keepdim: bool = False, **_: object) -> ir.Value:
        return reduced(c, op, c.cast(x, c.out.dtype), dim, keepdim)

    convert.__doc__ = f"ONNX ``{op}``."
    operator(name)(convert)


for _name, _op in _REDUCE.items():
    _register(_name, _op)


@operator("max", "min")
def extreme(
    c: Conversion, x: ir.Value, dim: int | None = None, keepdim: bool = False, other: ir.Value | None = None
) -> ir.Value | list[ir.Value]:
    """Largest or smallest of a tensor, of an axis (with its position), or of two tensors."""
    largest = "max" in str(c.current.target)
    if other is not None:
        return c.emit("Max" if largest else "Min", x, other)
    op = "ReduceMax" if largest else "ReduceMin"
    value = reduced(c, op, x, dim, keepdim)
    if dim is None:
        return value
    position = c.emit("ArgMax" if largest else "ArgMin", x, axis=c.axis(x, dim), keepdims=int(keepdim))
    return [value, position]


@operator("argmax", "argmin")
def argument(c: Conversion, x: ir.Value, dim: int | None = None, keepdim: bool = False) -> ir.Value:
    """Position of the largest or smallest along an axis."""
    if dim is None:
        raise c.refuse("it looks for one position in the whole tensor")
    op = "ArgMax" if "argmax" in str(c.current.target) else "ArgMin"
    return c.emit(op, x, axis=c.axis(x, dim), keepdims=int(keepdim))


@operator("var", "std")
def variance(
    c: Conversion, x: ir.Value, dim: Dims = None, keepdim: bool = False, unbiased: bool = True,
    correction: float | None = None,
) -> ir.Value:  # fmt: skip
    """Variance or standard deviation."""
    less = float(unbiased) if correction is None else float(correction)
    axes = _axes(c, x, dim)
    count = math.prod(c.static(x, a) for a in axes)
    centred = c.emit("Sub", x, reduced(c, "ReduceMean", x, axes, True))
    mean = reduced(c, "ReduceMean", c.emit("Mul", centred, centred), axes, keepdim)
    if less:
        mean = c.emit("Mul", mean, c.number(count / (count - less), c.out.dtype, "correction"))
    return c.emit("Sqrt", mean) if "std" in str(c.current.target) else mean


@operator("norm", "linalg_vector_norm")
def norm(
    c: Conversion, x: ir.Value, p: float | None = None, ord: float | None = None, dim: Dims = None,
    keepdim: bool = False, **_: object,
) -> ir.Value:  # fmt: skip
    """Sum of absolute values, or Euclidean length."""
    order = 2 if p is None and ord is None else p if p is not None else ord
    if order not in (1, 2):
        raise c.refuse(f"its order {order} is neither 1 nor 2")
    return reduced(c, f"ReduceL{int(order)}", x, dim, keepdim)


@operator("topk")
def topk(
    c: Conversion, x: ir.Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> list[ir.Value]:
    """The k largest along an axis, and their positions."""
    return c.emit_many(
        "TopK", [x, c.ints([k], "k")], 2, axis=c.axis(x, dim), largest=int(largest), sorted=int(sorted)
    )


@operator("cumsum")
def cumsum(c: Conversion, x: ir.Value, dim: int, **_: object) -> ir.Value:
    """Running sums along an axis."""
    return c.emit("CumSum", c.cast(x, c.out.dtype), c.constant(np.int64(c.axis(x, dim)), "dim"))
