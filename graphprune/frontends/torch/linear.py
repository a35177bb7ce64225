"""Matrix products."""

from __future__ import annotations

import string

import onnx_ir as ir

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.registry import operator


@operator("linear")
def linear(c: Conversion, x: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    """x times the transposed weight, plus bias."""
    if c.rank(x) == 2:
        return c.emit("Gemm", x, weight, bias, transB=1)
    y = c.emit("MatMul", x, c.emit("Transpose", weight, perm=[1, 0]))
    return y if bias is None else c.emit("Add", y, bias)


@operator("matmul", "bmm", "mm", "mv", "dot")
def matmul(
    c: Conversion, x: ir.Value, other: ir.Value | None = None, mat2: ir.Value | None = None,
    vec: ir.Value | None = None, tensor: ir.Value | None = None,
) -> ir.Value:  # fmt: skip
    """Matrix product with broadcasting."""
    return c.emit("MatMul", x, next(v for v in (other, mat2, vec, tensor) if v is not None))


@operator("addmm")
def addmm(c: Conversion, x: ir.Value, mat1: ir.Value, mat2: ir.Value, beta: float, alpha: float) -> ir.Value:
    """beta x + alpha (mat1 mat2)."""
    return c.emit("Gemm", mat1, mat2, x, alpha=float(alpha), beta=float(beta))


@operator("baddbmm")
def baddbmm(
    c: Conversion, x: ir.Value, batch1: ir.Value, batch2: ir.Value, beta: float, alpha: float
) -> ir.Value:
    """beta x + alpha (batch1 batch2)."""
    y, dtype = c.emit("MatMul", batch1, batch2), c.out.dtype
    if alpha != 1:
        y = c.emit("Mul", y, c.number(alpha, dtype, "alpha"))
    if beta == 0:
        return y
    if beta != 1:
        x = c.emit("Mul", x, c.number(beta, dtype, "beta"))
    return c.emit("Add", x, y)


@operator("einsum")
def einsum(c: Conversion, equation: str, tensors: list[ir.Value], **_: object) -> ir.Value:
    """A generalised product; an ellipsis becomes letters."""
    terms, arrow, out = equation.replace(" ", "").partition("->")
    letters = terms.split(",")
    free = [x for x in string.ascii_letters if x not in equation]
    ranks = [c.rank(t) - len(term.replace("...", "")) for t, term in zip(tensors, letters, strict=True)]
    width = max((r for r, term in zip(ranks, letters, strict=True) if "..." in term), default=0)
    dots = "".join(free[:width])
    plain = [t.replace("...", dots[width - r :] if r else "") for t, r in zip(letters, ranks, strict=True)]
    if arrow:
        target = out.replace("...", dots)
    else:
        seen = "".join(plain)
        target = dots + "".join(sorted(x for x in set(seen) if seen.count(x) == 1 and x not in dots))
    return c.emit("Einsum", *tensors, equation=f"{','.join(plain)}->{target}")
