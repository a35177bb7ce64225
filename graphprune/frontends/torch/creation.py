"""Tensors that the graph makes itself."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

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
