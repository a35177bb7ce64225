"""Matrix products. A weight is read as it is stored and transposed afterwards."""

from __future__ import annotations

import torch
from torch import fx
from torch.nn import functional as F

from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.graph import Node


@converter("MatMul")
def matmul(c: Conversion, n: Node, a: fx.Node, b: fx.Node) -> fx.Node:
    """torch.matmul, which broadcasts the leading axes alike."""
    return c.emit(torch.matmul, a, b)


@converter("Gemm")
def gemm(c: Conversion, n: Node, a: fx.Node, b: fx.Node, bias: fx.Node | None = None) -> fx.Node:
    """alpha A' B' + beta C: linear where C is a plain bias, addmm otherwise."""
    alpha, beta = n.attr("alpha", 1.0), n.attr("beta", 1.0)
    if n.attr("transA", 0):
        a = _transposed(c, a)
    if alpha == 1.0 and (bias is None or (beta == 1.0 and _is_row(c, n))):
        # torch.nn.functional.linear takes the weight as (out, in).
        return c.emit(F.linear, a, b if n.attr("transB", 0) else _transposed(c, b), bias)
    if n.attr("transB", 0):
        b = _transposed(c, b)
    if bias is None:
        return c.emit(torch.mul, c.emit(torch.matmul, a, b), alpha)
    return c.emit(torch.addmm, bias, a, b, beta=beta, alpha=alpha)


@converter("com.microsoft::FusedMatMul")
def fused_matmul(c: Conversion, n: Node, a: fx.Node, b: fx.Node) -> fx.Node:
    """alpha A' B', the last two axes of A and B transposed where asked."""
    if n.attr("transBatchA", 0) or n.attr("transBatchB", 0):
        raise c.refuse(n, "it transposes batch axes; export without fused operators")
    if n.attr("transA", 0) and len(c.shape(n, 0)) > 1:
        a = _transposed(c, a)
    if n.attr("transB", 0) and len(c.shape(n, 1)) > 1:
        b = _transposed(c, b)
    y = c.emit(torch.matmul, a, b)
    alpha = n.attr("alpha", 1.0)
    return y if alpha == 1.0 else c.emit(torch.mul, y, alpha)


@converter("Einsum")
def einsum(c: Conversion, n: Node, *operands: fx.Node) -> fx.Node:
    """torch.einsum reads the same equations."""
    return c.emit(torch.einsum, n.attr("equation").replace(" ", ""), *operands)


def _transposed(c: Conversion, x: fx.Node) -> fx.Node:
    return c.emit(torch.transpose, x, -2, -1)


def _is_row(c: Conversion, n: Node) -> bool:
    """Whether C has one entry per output column."""
    columns = c.shape(n, 1)[0 if n.attr("transB", 0) else 1]
    return c.shape(n, 2) == (columns,)
