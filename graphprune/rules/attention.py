"""Fused attention operators: whole heads go (with grouped queries, a key head and all its queries)."""

from __future__ import annotations

import math

import numpy as np

from graphprune import labels as lab
from graphprune.coupler import Coupler
from graphprune.edits import Kept, SetAttr
from graphprune.graph import Node
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.records import Work
from graphprune.rules.registry import operand, rule


def _heads(c: Coupler, ids: np.ndarray | None, heads: int) -> np.ndarray | None:
    """``[heads * width]`` -> one label per head."""
    if ids is None:
        return None
    rows = ids.reshape(heads, -1)
    c.tie(rows, rows[:, :1])
    return rows[:, 0]


def _tie_heads(
    c: Coupler, n: Node, queries: np.ndarray | None, *keys: np.ndarray | None
) -> np.ndarray | None:
    """One label per key head; several query heads may share one."""
    if queries is None or any(k is None for k in keys):
        for ids in (queries, *keys):
            if ids is not None:
                c.freeze(ids, Reason.FIXED_OPERAND, n)
        return None
    first = keys[0]
    assert first is not None
    c.tie(queries.reshape(first.size, -1), first[:, None])
    for other in keys[1:]:
        assert other is not None
        c.tie(other, first)
    return first


def _refuse(
    c: Coupler, n: Node, reason: Reason, *operands: Labels | None, heads_per_key: float = 1.0
) -> tuple[Labels, ...]:
    """Freeze every operand; the work of attention still counts. ``operands`` start with q, k, v."""
    q, k, v = (*operands, None, None)[:3]
    if q is not None and k is not None and v is not None and 3 <= q.rank == k.rank == v.rank <= 4:
        size, length = math.prod(q.shape), k.shape[-2]
        weighted = size / q.shape[-1] * v.shape[-1] * (heads_per_key if q.rank == 3 else 1)
        c.works.append(Work(n, length * (size + weighted), ()))
    for x in operands:
        c.freeze_all(x, reason, n)
    return tuple(Labels.untracked(o.shape or (1,)) for o in n.outputs)


def _rest(n: Node, first: Labels) -> tuple[Labels, ...]:
    return (first, *(Labels.untracked(o.shape or (1,)) for o in n.outputs[1:]))


@rule("com.microsoft::MultiHeadAttention")
def multi_head_attention(
    c: Coupler, n: Node, q: Labels, k: Labels | None = None, v: Labels | None = None,
    bias: Labels | None = None, *others: Labels | None,
) -> tuple[Labels, ...]:  # fmt: skip
    """Queries, keys and values lose whole heads; the bias is sliced with them."""
    extra = [o for o in others if o is not None]
    if k is None or v is None or k.rank != 3 or v.rank != 3 or extra or len(n.outputs) > 1:
        return _refuse(c, n, Reason.MODE, q, k, v, bias, *others)
    heads = n.attr("num_heads")
    ids = [c.only(x, 2, n) for x in (q, k, v)]
    label = _tie_heads(c, n, *(_heads(c, i, heads) for i in ids))
    if bias is not None:
        at = 0
        flat = lab.vector(bias, 0)
        for i, x in zip(ids, (q, k, v), strict=True):
            size = x.shape[2]
            part = None if flat is None else flat[at : at + size]
            c.tie_vectors(i, part, n)
            at += size
    if label is None:
        return _refuse(c, n, Reason.FIXED_OPERAND, q, k, v, bias)
    c.on_prune(n, lambda kept: [SetAttr("num_heads", kept.count(label))])
    tokens = q.shape[0] * q.shape[1] * k.shape[1]
    c.works.append(Work(n, float(tokens * (q.shape[2] + v.shape[2]) // heads), (label,)))
    out = np.repeat(label, v.shape[2] // heads)
    return _rest(n, Labels.vector(n.outputs[0].shape or (), 2, out))


@rule("com.microsoft::GroupQueryAttention")
def grouped_query_attention(c: Coupler, n: Node, *operands: Labels | None) -> tuple[Labels, ...]:
    """A key head goes with all its query heads; a cache from outside keeps every head."""
    q, k, v = operands[:3]
    past = [o for o in operands[3:5] if o is not None]
    if q is None or k is None or v is None or past or any(len(o.consumers) for o in n.outputs[1:]):
        each = n.attr("num_heads") / n.attr("kv_num_heads")
        return _refuse(c, n, Reason.STATE, *operands, heads_per_key=each)
    return _grouped(c, n, q, k, v, n.attr("num_heads"), n.attr("kv_num_heads"), "num_heads", "kv_num_heads")


@rule("Attention")
def attention(c: Coupler, n: Node, *operands: Labels | None) -> tuple[Labels, ...]:
    """Standard attention: whole key heads go with their query heads."""
    q, k, v = operands[:3]
    others = [o for o in operands[3:] if o is not None]
    if q is None or k is None or v is None:
        return _refuse(c, n, Reason.MODE, *operands)
    blocked = [o for o in others if o.rank == 4 and o.shape[1] > 1]
    if blocked or any(o is not None for o in operands[4:6]):
        each = n.attr("q_num_heads", 1) / n.attr("kv_num_heads", 1)
        return _refuse(c, n, Reason.STATE, *operands, heads_per_key=each)
    if q.rank == 3:
        return _grouped(
            c, n, q, k, v, n.attr("q_num_heads"), n.attr("kv_num_heads"), "q_num_heads", "kv_num_heads"
        )
    heads = [c.only(x, 1, n, Reason.MODE) for x in (q, k, v)]
    label = _tie_heads(c, n, *heads)
    if label is None:
        return _refuse(c, n, Reason.FIXED_OPERAND, q, k, v)
    assert heads[0] is not None
    macs = float(q.shape[0] * q.shape[2] * k.shape[2] * (q.shape[3] + v.shape[3]))
    c.works.append(Work(n, macs, (heads[0],)))
    return _rest(n, Labels.vector(n.outputs[0].shape or (), 1, heads[0]))


def _grouped(
    c: Coupler, n: Node, q: Labels, k: Labels, v: Labels, q_heads: int, kv_heads: int, q_name: str, kv_name: str
) -> tuple[Labels, ...]:  # fmt: skip
    queries = _heads(c, c.only(q, 2, n), q_heads)
    keys = [_heads(c, c.only(x, 2, n), kv_heads) for x in (k, v)]
    label = _tie_heads(c, n, queries, *keys)
    if label is None or queries is None:
        return _refuse(c, n, Reason.FIXED_OPERAND, q, k, v, heads_per_key=q_heads / kv_heads)
    c.on_prune(n, lambda kept: [SetAttr(q_name, kept.count(queries)), SetAttr(kv_name, kept.count(label))])
    width = v.shape[2] // kv_heads
    tokens = q.shape[0] * q.shape[1] * k.shape[1]
    c.works.append(Work(n, float(tokens * (q.shape[2] // q_heads + width)), (queries,)))
    return _rest(n, Labels.vector(n.outputs[0].shape or (), 2, np.repeat(queries, width)))


@rule("com.microsoft::Attention")
def packed_attention(
    c: Coupler, n: Node, x: Labels, w: Labels, bias: Labels | None = None, *others: Labels | None
) -> tuple[Labels, ...]:
    """One packed projection to queries, keys and values, which lose whole heads."""
    sizes, heads, weight = n.attr("qkv_hidden_sizes"), n.attr("num_heads"), operand(n.input(1))
    sizes = list(sizes or [w.shape[1] // 3] * 3)
    if any(o is not None for o in others) or len(n.outputs) > 1 or not weight.constant:
        batch, tokens, width = x.shape
        each = width * w.shape[1] + tokens * (sizes[1] + sizes[2])
        c.works.append(Work(n, float(batch * tokens * each), ()))
        return _refuse(c, n, Reason.MODE, x, w, bias, *others)
    rows = lab.vector(w, 0)
    columns = c.tie_vectors(c.only(x, 2, n), rows, n)
    if columns is not None and rows is not None:
        c.contracted.append(rows)
    packed = lab.vector(w, 1)
    if bias is not None:
        packed = c.tie_vectors(packed, lab.vector(bias, 0), n)
    if packed is None:
        return _refuse(c, n, Reason.FIXED_OPERAND, w)
    c.channels(packed, n)
    q, k, v = (_heads(c, p, heads) for p in np.split(packed, np.cumsum(sizes)[:2]))
    label = _tie_heads(c, n, q, k, v)
    assert label is not None
    positions = float(x.shape[0] * x.shape[1])
    if columns is None:
        c.works.append(Work(n, positions * x.shape[2], (packed,)))
    else:
        c.works.append(Work(n, positions, (packed, columns)))
    c.works.append(Work(n, positions * x.shape[1] * (sizes[1] + sizes[2]) / heads, (label,)))

    def rewrite(kept: Kept) -> list[SetAttr]:
        count = kept.count(label)
        edits = [SetAttr("num_heads", count)]
        if n.attr("qkv_hidden_sizes"):
            edits.append(SetAttr("qkv_hidden_sizes", [s // heads * count for s in sizes]))
        return edits

    c.on_prune(n, rewrite)
    return _rest(n, Labels.vector(n.outputs[0].shape or (), 2, np.repeat(label, sizes[2] // heads)))
