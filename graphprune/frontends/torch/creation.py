"""Tensors that the graph makes itself."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from graphprune.frontends.torch.conversion import Conversion, Size, element_type
from graphprune.frontends.torch.registry import operator


def _filled(c: Conversion, size: list[Size], value: float) -> ir.Value:
    kind = element_type(c.out.dtype)
    data = ir.Tensor(np.array([value]).astype(kind.numpy()), dtype=kind)
    return c.emit("ConstantOfShape", c.sizes(size, "size"), value=data)


@operator("zeros", "new_zeros", "empty", "new_empty")
def zeros(c: Conversion, size: list[Size], **_: object) -> ir.Value:
    """Zeros of a given size."""
    return _filled(c, size, 0)


@operator("ones", "new_ones")
def ones(c: Conversion, size: list[Size], **_: object) -> ir.Value:
    """Ones of a given size."""
    return _filled(c, size, 1)


@operator("full", "new_full")
def full(c: Conversion, size: list[Size], fill_value: float, **_: object) -> ir.Value:
    """A number, repeated."""
    return _filled(c, size, fill_value)


@operator("arange")
def arange(c: Conversion, end: Size, start: Size = 0, step: Size = 1, **_: object) -> ir.Value:
    """Numbers from start to end."""
    numbers = {"start": start, "end": end, "step": step}
    if all(isinstance(n, int | float) for n in numbers.values()):
        raise c.refuse("it is constant")  # and computed now
    dtype = c.out.dtype
    scalars = [
        c.number(n, dtype, what) if not isinstance(n, fx.Node) else _scalar(c, n)
        for what, n in numbers.items()
    ]
    return c.emit("Range", *scalars)


def _scalar(c: Conversion, size: fx.Node) -> ir.Value:
    """A size that follows the batch, as a number of the output's type."""
    value = c.emit("Squeeze", c.size(size), c.ints([0], "axes"))
    return value if c.out.dtype == torch.int64 else c.emit("Cast", value, to=int(element_type(c.out.dtype)))


@operator("scalar_tensor")
def scalar_tensor(c: Conversion, s: float, **_: object) -> ir.Value:
    """One number."""
    return c.number(s, c.out.dtype)


@operator("zeros_like", "ones_like", "full_like")
def like(c: Conversion, x: ir.Value, fill_value: float = 0, **_: object) -> ir.Value:
    """A number in the size of another tensor."""
    value = 1.0 if "ones" in str(c.current.target) else fill_value
    kind = element_type(c.out.dtype)
    data = ir.Tensor(np.array([value]).astype(kind.numpy()), dtype=kind)
    return c.emit("ConstantOfShape", c.emit("Shape", x), value=data)


@operator("tril", "triu", "tril_", "triu_")
def triangle(c: Conversion, x: ir.Value, diagonal: int = 0) -> ir.Value:
    """The lower or upper triangle."""
    upper = int("triu" in str(c.current.target))
    return c.emit("Trilu", x, c.constant(np.int64(diagonal), "diagonal"), upper=upper)
