"""Normalisations. Those that take statistics over channels are exact only while none is cut."""

from __future__ import annotations

import numpy as np

from graphprune import labels as lab
from graphprune.coupler import Coupler
from graphprune.edits import SetAttr
from graphprune.graph import Node
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.rules.registry import rule


@rule("BatchNormalization")
def batch_norm(c: Coupler, n: Node, x: Labels, *params: Labels) -> tuple[Labels, ...]:
    """Channels pass; scale, bias, mean and variance are sliced."""
    ids = lab.vector(x, 1) if x.rank > 1 else None
    for p in params:
        ids = c.tie_vectors(ids, lab.vector(p, 0), n)
    rest = tuple(Labels.vector(p.shape, 0, ids) for p in params[: len(n.outputs) - 1])
    return (x if ids is not None else c.freeze_axes(x, [1], Reason.FIXED_OPERAND, n), *rest)


@rule("InstanceNormalization")
def instance_norm(c: Coupler, n: Node, x: Labels, scale: Labels, bias: Labels) -> Labels:
    """Channels pass with their scale and bias; statistics run over the other axes."""
    ids = lab.vector(x, 1)
    for p in (scale, bias):
        ids = c.tie_vectors(ids, lab.vector(p, 0), n)
    return c.mixes(n, x, range(2, x.rank))


@rule(
    "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
    "com.microsoft::SimplifiedLayerNormalization",
)  # fmt: skip
def layer_norm(c: Coupler, n: Node, x: Labels, *params: Labels | None) -> tuple[Labels, ...]:
    """Statistics over the last axes, from ``axis`` on; scale and bias are sliced."""
    axis = n.attr("axis", -1) % x.rank
    y = c.broadcast(n, [x, *(p for p in params if p is not None)])
    c.mixes(n, y, range(axis, x.rank))
    statistics = c.freeze_axes(x, [], Reason.CROSS_CHANNEL, n)
    for a in range(axis, x.rank):
        statistics = lab.resized(statistics.without(statistics.on(a)), a, 1)
    return (y, *(statistics for _ in n.outputs[1:]))


@rule("com.microsoft::SkipLayerNormalization", "com.microsoft::SkipSimplifiedLayerNormalization")
def skip_layer_norm(
    c: Coupler, n: Node, x: Labels, skip: Labels, *params: Labels | None
) -> tuple[Labels, ...]:
    """LayerNormalization of a sum; the sum itself may be the fourth output."""
    y = c.broadcast(n, [x, skip, *(p for p in params if p is not None)])
    c.mixes(n, y, [x.rank - 1])
    return tuple(
        y if len(o.shape or ()) == y.rank and o.shape == y.shape else Labels.untracked(o.shape or (1,))
        for o in n.outputs
    )


@rule("GroupNormalization", settle=False)
def group_norm(c: Coupler, n: Node, x: Labels, scale: Labels, bias: Labels) -> Labels:
    """Whole normalisation groups go together, which is exact."""
    x = c.settle(x, n)
    groups, ids = n.attr("num_groups"), lab.vector(x, 1)
    for p in (scale, bias):
        vector = lab.vector(p, 0)
        if ids is not None and vector is not None and vector.size == groups != ids.size:
            c.tie(vector[:, None], ids.reshape(groups, -1))  # opset 18: one entry per group
        else:
            ids = c.tie_vectors(ids, vector, n)
    x = c.mixes(n, x, range(2, x.rank))
    if ids is None:
        return c.freeze_axes(x, [1], Reason.FIXED_OPERAND, n)
    rows = ids.reshape(groups, -1)
    c.tie_positions(n, rows.T)
    c.on_prune(n, lambda kept: [SetAttr("num_groups", kept.count(rows[:, 0]))])
    return x


@rule("LRN")
def lrn(c: Coupler, n: Node, x: Labels) -> Labels:
    """Each channel is divided by its neighbours."""
    return c.mixes(n, x, [1])


@rule("LpNormalization")
def lp_norm(c: Coupler, n: Node, x: Labels) -> Labels:
    """Divided by the norm along ``axis``."""
    return c.mixes(n, x, [n.attr("axis", -1) % x.rank])


@rule("MeanVarianceNormalization")
def mean_variance_norm(c: Coupler, n: Node, x: Labels) -> Labels:
    """Statistics over ``axes``."""
    return c.mixes(n, x, [a % x.rank for a in n.attr("axes", [0, 2, 3])])


@rule("DynamicQuantizeLinear")
def dynamic_quantize(c: Coupler, n: Node, x: Labels) -> tuple[Labels, ...]:
    """The range is taken over the whole tensor."""
    c.mixes(n, x, range(x.rank))
    return (x, Labels.untracked(()), Labels.untracked(()))


@rule("QuantizeLinear", "DequantizeLinear", weights=True)
def quantize(c: Coupler, n: Node, x: Labels, scale: Labels, zero: Labels | None = None) -> Labels:
    """Positions pass; scales and zero points per channel are sliced."""
    axis = n.attr("axis", 1)
    for p in (scale, zero):
        if p is None or p.rank == 0 or p.shape == (1,):
            continue
        if p.rank != 1 or n.attr("block_size", 0):
            x = c.freeze_axes(x, range(x.rank), Reason.MODE, n)
            c.freeze_all(p, Reason.MODE, n)
            continue
        ids = c.tie_vectors(lab.vector(x, axis % x.rank), lab.vector(p, 0), n)
        if ids is None:
            x = c.freeze_axes(x, [axis % x.rank], Reason.FIXED_OPERAND, n)
    return x


def statistics_axes(node: Node) -> np.ndarray | None:
    """Axes given by attribute or by a constant second input."""
    axes = node.attr("axes")
    second = node.input(1)
    if axes is None and second is not None:
        if second.known is None:
            return None
        axes = second.known
    return np.asarray([] if axes is None else axes, np.int64).reshape(-1)


@rule(
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
    settle=False,
)  # fmt: skip
def reduce(c: Coupler, n: Node, x: Labels, *_: Labels | None) -> Labels:
    """Other axes pass; a reduction over channels is a cross-channel statistic."""
    shape = n.outputs[0].shape or ()
    axes = statistics_axes(n)
    if axes is None:
        c.freeze_all(x, Reason.DATA_DEPENDENT, n)
        return Labels.untracked(shape)
    if axes.size == 0:
        if n.attr("noop_with_empty_axes", 0):
            return x
        axes = np.arange(x.rank)
    over = sorted(int(a) % x.rank for a in axes)
    x = c.mixes(n, c.settle(x, n, avoid=over), over)
    for a in over:
        x = lab.resized(x.without(x.on(a)), a, 1)
    return x if n.attr("keepdims", 1) else lab.drop_axes(x, over)


@rule("Softmax", "LogSoftmax", "Hardmax", settle=False)
def softmax(c: Coupler, n: Node, x: Labels) -> Labels:
    """Positions along the axis compete and stay; other axes pass."""
    axis = n.attr("axis", -1 if n.opset >= 13 else 1) % x.rank
    over = [axis] if n.opset >= 13 else list(range(axis, x.rank))
    return c.freeze_axes(c.settle(x, n, avoid=over), over, Reason.COMPETING, n)


@rule("ArgMax", "ArgMin", settle=False)
def argmax(c: Coupler, n: Node, x: Labels) -> Labels:
    """Positions along the axis compete and stay; other axes pass."""
    axis = n.attr("axis", 0) % x.rank
    x = c.freeze_axes(c.settle(x, n, avoid=[axis]), [axis], Reason.COMPETING, n)
    x = lab.resized(x, axis, 1)
    return x if n.attr("keepdims", 1) else lab.drop_axes(x, [axis])


@rule("TopK", settle=False)
def top_k(c: Coupler, n: Node, x: Labels, _: Labels | None = None) -> tuple[Labels, ...]:
    """Positions along the axis compete and stay; other axes pass."""
    axis = n.attr("axis", -1) % x.rank
    x = c.freeze_axes(c.settle(x, n, avoid=[axis]), [axis], Reason.COMPETING, n)
    return tuple(lab.resized(x, axis, (o.shape or x.shape)[axis]) for o in n.outputs)


@rule("CumSum", settle=False)
def cumsum(c: Coupler, n: Node, x: Labels, _: Labels | None = None) -> Labels:
    """Every position along the axis reads those before it; other axes pass."""
    second = n.input(1)
    over = range(x.rank) if second is None or second.known is None else [int(second.known.item()) % x.rank]
    return c.freeze_axes(c.settle(x, n, avoid=list(over)), list(over), Reason.COMPETING, n)
