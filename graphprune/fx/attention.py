"""Attention as one operator: heads are split off, and torch computes the scaled dot products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.graph import Node


@dataclass(frozen=True)
class _Mask:
    """Added to the scores, or boolean where true takes part; ``causal``: no later key takes part.

    torch takes one or the other.
    """

    node: fx.Node | None
    causal: bool


def _mask(
    c: Conversion, mask: fx.Node | None, lengths: tuple[int, int], *, causal: bool, boolean: bool = False
) -> _Mask:
    """Both kinds made one where both are given; ``lengths`` are those of the queries and of the keys."""
    if mask is None or not causal:
        return _Mask(mask, causal)
    seen = c.buffer(np.tri(*lengths, dtype=bool), "causal")
    if boolean:
        return _Mask(c.emit(torch.logical_and, mask, seen), False)
    return _Mask(c.emit(torch.where, seen, mask, -float("inf")), False)


@converter("Attention")
def attention(
    c: Conversion,
    n: Node,
    q: fx.Node,
    k: fx.Node,
    v: fx.Node,
    mask: fx.Node | None = None,
    *past: fx.Node | None,
) -> fx.Node:
    """The operator of opset 23, heads folded into the last axis or an axis of their own; no cache."""
    if any(p is not None for p in past):
        raise c.refuse(n, "it has a key-value cache; export the model without it")
    for name in ("softcap", "left_window_size", "right_window_size"):
        if n.attr(name, 0.0) > 0:
            raise c.refuse(n, f"{name} is not supported")
    _only_first_output(c, n)
    folded = len(c.shape(n)) == 3
    if folded:
        q = _split_heads(c, q, n.attr("q_num_heads"))
        k, v = (_split_heads(c, p, n.attr("kv_num_heads")) for p in (k, v))
    lengths = (c.shape(n, 0)[-2], c.shape(n, 1)[-2])
    if mask is not None and c.shape(n, 3)[-1] not in (1, lengths[1]):
        raise c.refuse(n, "its mask does not cover every key")
    value = n.input(3)
    boolean = value is not None and value.dtype == "bool"
    masks = _mask(c, mask, lengths, causal=bool(n.attr("is_causal", 0)), boolean=boolean)
    grouped = _kv_heads(c, n, folded) != _q_heads(c, n, folded)
    y = _attend(c, n, (q, k, v), masks, grouped=grouped)
    return _join_heads(c, y) if folded else y


@converter("com.microsoft::MultiHeadAttention")
def multi_head_attention(
    c: Conversion,
    n: Node,
    q: fx.Node,
    k: fx.Node | None = None,
    v: fx.Node | None = None,
    bias: fx.Node | None = None,
    padding: fx.Node | None = None,
    added: fx.Node | None = None,
    *past: fx.Node | None,
) -> fx.Node:
    """Separate queries, keys and values of (batch, length, heads * size), without cache."""
    if k is None or v is None or any(len(c.shape(n, i)) != 3 for i in range(3)):
        raise c.refuse(n, "packed or cross-attention operands of other than 3 axes are not supported")
    if any(p is not None for p in past):
        raise c.refuse(n, "it has a key-value cache; export the model without it")
    _only_first_output(c, n)
    if bias is not None:
        widths = [c.shape(n, i)[-1] for i in range(3)]
        parts = _split(c, bias, widths, 0)
        q, k, v = (c.emit(torch.add, x, p) for x, p in zip((q, k, v), parts, strict=True))
    heads = [_split_heads(c, x, n.attr("num_heads")) for x in (q, k, v)]
    lengths = (c.shape(n, 0)[1], c.shape(n, 1)[1])
    mask = _mask(c, _padding_mask(c, n, padding, added, 4), lengths, causal=bool(n.attr("unidirectional", 0)))
    return _join_heads(c, _attend(c, n, (heads[0], heads[1], heads[2]), mask))


@converter("com.microsoft::Attention")
def packed_attention(
    c: Conversion,
    n: Node,
    x: fx.Node,
    w: fx.Node,
    bias: fx.Node | None = None,
    padding: fx.Node | None = None,
    past: fx.Node | None = None,
    added: fx.Node | None = None,
    *_: fx.Node | None,
) -> fx.Node:
    """Projections of one input to queries, keys and values by one weight, then attention; no cache."""
    if past is not None or n.attr("do_rotary", 0):
        raise c.refuse(n, "it has a key-value cache or rotary positions; export the model without them")
    _only_first_output(c, n)
    projected = c.emit(torch.matmul, x, w)
    if bias is not None:
        projected = c.emit(torch.add, projected, bias)
    widths = n.attr("qkv_hidden_sizes") or [c.shape(n, 1)[1] // 3] * 3
    q, k, v = (_split_heads(c, p, n.attr("num_heads")) for p in _split(c, projected, widths, -1))
    length = c.shape(n)[1]
    added = _padding_mask(c, n, padding, added, 3)
    mask = _mask(c, added, (length, length), causal=bool(n.attr("unidirectional", 0)))
    return _join_heads(c, _attend(c, n, (q, k, v), mask))


def _attend(
    c: Conversion, n: Node, qkv: tuple[fx.Node, fx.Node, fx.Node], mask: _Mask, *, grouped: bool = False
) -> fx.Node:
    """Scaled dot-product attention of (batch, heads, length, size) operands."""
    return c.emit(
        F.scaled_dot_product_attention,
        *qkv,
        attn_mask=mask.node,
        is_causal=mask.causal,
        scale=n.attr("scale") or None,
        enable_gqa=grouped,
    )


def _padding_mask(
    c: Conversion, n: Node, padding: fx.Node | None, added: fx.Node | None, index: int
) -> fx.Node | None:
    """``added`` plus the filter value where the key padding mask, (batch, keys), is 0."""
    if padding is None:
        return added
    if len(c.shape(n, index)) != 2:
        raise c.refuse(n, "its padding mask must have one entry per sample and key")
    dropped = c.emit(torch.eq, c.emit(torch.unsqueeze, c.emit(torch.unsqueeze, padding, 1), 1), 0)
    filtered = c.emit(torch.mul, c.to_float(dropped), n.attr("mask_filter_value", -10000.0))
    return filtered if added is None else c.emit(torch.add, filtered, added)


def _split(c: Conversion, x: fx.Node, widths: list[int], axis: int) -> list[fx.Node]:
    starts = [sum(widths[:i]) for i in range(len(widths))]
    return [c.emit(torch.narrow, x, axis, s, w) for s, w in zip(starts, widths, strict=True)]


def _split_heads(c: Conversion, x: fx.Node, heads: int) -> fx.Node:
    """(batch, length, heads * size) -> (batch, heads, length, size)."""
    return c.emit(torch.transpose, c.emit(torch.unflatten, x, -1, (heads, -1)), 1, 2)


def _join_heads(c: Conversion, x: fx.Node) -> fx.Node:
    """(batch, heads, length, size) -> (batch, length, heads * size)."""
    return c.emit(torch.flatten, c.emit(torch.transpose, x, 1, 2), 2)


def _q_heads(c: Conversion, n: Node, folded: bool) -> int:
    return int(n.attr("q_num_heads") if folded else c.shape(n, 0)[1])


def _kv_heads(c: Conversion, n: Node, folded: bool) -> int:
    return int(n.attr("kv_num_heads") if folded else c.shape(n, 1)[1])


def _only_first_output(c: Conversion, n: Node) -> None:
    if any(o.consumers or o.is_output for o in n.outputs[1:]):
        raise c.refuse(n, "its further outputs (the cache or the scores) are used")
