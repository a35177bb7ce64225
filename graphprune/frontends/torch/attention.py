"""Attention, written as the matrix products that it is, so that heads and widths can go."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.registry import operator


@operator("scaled_dot_product_attention")
def scaled_dot_product_attention(
    c: Conversion, query: ir.Value, key: ir.Value, value: ir.Value, attn_mask: ir.Value | None = None,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, **_: object,
) -> ir.Value:  # fmt: skip
    """softmax(q k' scale + mask) v, the scale as a literal: it must not change with the width."""
    rank, dtype = c.rank(query), c.out.dtype
    factor = 1 / math.sqrt(c.static(query, -1)) if scale is None else scale
    keys = c.emit("Transpose", key, perm=[*range(rank - 2), rank - 1, rank - 2])
    number = c.number(factor, dtype, "scale")
    if enable_gqa and c.shape(query)[-3] != c.shape(key)[-3]:
        return _grouped(c, c.emit("Mul", query, number), key, value, attn_mask, is_causal)
    # not the query: where that is constant (learned queries), the product would be a constant that no fx node returns
    scores = c.emit("Mul", c.emit("MatMul", query, keys), number)
    scores = _masked(c, scores, query, key, attn_mask, is_causal)
    return c.emit("MatMul", c.emit("Softmax", scores, axis=-1), value)


def _grouped(
    c: Conversion, scaled: ir.Value, key: ir.Value, value: ir.Value, mask: ir.Value | None, is_causal: bool
) -> ir.Value:
    """Grouped queries: the standard operator, which keeps heads and their keys together."""
    if is_causal and mask is None:
        return c.emit("Attention", scaled, key, value, None, is_causal=1, scale=1.0)
    return c.emit("Attention", scaled, key, value, mask, scale=1.0)


def _masked(
    c: Conversion, scores: ir.Value, query: ir.Value, key: ir.Value, mask: ir.Value | None, is_causal: bool
) -> ir.Value:
    dtype = c.out.dtype
    if is_causal:
        length, other = c.static(query, -2), c.static(key, -2)
        future = np.triu(np.full((length, other), float("-inf")), 1)
        return c.emit("Add", scores, c.constant(future, "mask", dtype))
    if mask is None:
        return scores
    if c.fake(mask).dtype == torch.bool:
        low = c.number(float("-inf"), dtype, "masked")
        return c.emit("Add", scores, c.emit("Where", mask, c.number(0, dtype, "seen"), low))
    return c.emit("Add", scores, c.cast(mask, dtype))
