"""Blocks with the operators that few networks hold, so that a property test meets every rule.

They are apart from ``random_graphs.BLOCKS`` because other tests train or rewrite those networks.
"""

from __future__ import annotations

import numpy as np

from tests.random_graphs import RARE_IMAGE, RARE_TOKENS, Builder, Tensor, block

REDUCTIONS = (
    "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare", "ReduceProd", "ReduceSum",
)  # fmt: skip


# -- images -------------------------------------------------------------------------------------------


@block(RARE_IMAGE)
def global_statistic(b: Builder, x: Tensor) -> Tensor:
    """Squeeze and excite by another statistic than the mean."""
    kind = b.pick(["GlobalMaxPool", "GlobalLpPool", *REDUCTIONS])
    tamed = b.op("Tanh", x.name)
    y = b.op(kind, tamed) if kind.startswith("Global") else b.reduce(kind, tamed, [2, 3])
    y = b.conv(Tensor(y, (x.dims[0], 1, 1)), x.dims[0])
    return Tensor(b.op("Mul", x.name, b.op("Sigmoid", y.name)), x.dims)


@block(RARE_IMAGE)
def rare_pool(b: Builder, x: Tensor) -> Tensor:
    return Tensor(b.op("LpPool", x.name, kernel_shape=[3, 3], pads=[1] * 4, p=2), x.dims)


@block(RARE_IMAGE)
def rare_activation(b: Builder, x: Tensor) -> Tensor:
    """Smooth ones: a jump would make rounding decide."""
    kinds = ["Sin", "Cos", "Atan", "Sinh", "Asinh", "ThresholdedRelu", "Shrink", "Reciprocal", "Log"]
    kind = b.pick([*kinds, "Celu"] if b.opset >= 12 else kinds)
    if kind in ("Reciprocal", "Log"):
        return Tensor(b.op(kind, b.op("Add", b.op("Sigmoid", x.name), b.scalar(1))), x.dims)
    if kind in ("ThresholdedRelu", "Shrink"):  # continuous at 0 alone
        return Tensor(b.op(kind, x.name, **{"alpha" if kind == "ThresholdedRelu" else "lambd": 0.0}), x.dims)
    return Tensor(b.op(kind, b.op("Tanh", x.name)), x.dims)


@block(RARE_IMAGE)
def finite_mask(b: Builder, x: Tensor) -> Tensor:
    """Entries that are no numbers are replaced."""
    bad = b.op("IsNaN", x.name)
    if b.chance(0.5):
        bad = b.op(b.pick(["Or", "Xor"]), bad, b.op("IsInf", x.name))
    if b.chance(0.5):
        return Tensor(b.op("Where", b.op("Not", bad), x.name, b.scalar(0)), x.dims)
    other = b.op("And", bad, bad)
    return Tensor(b.op("Mul", x.name, b.op("Sub", b.scalar(1), b.op("Cast", other, to=1))), x.dims)


@block(RARE_IMAGE)
def sampled(b: Builder, x: Tensor) -> Tensor:
    """Read at fixed places, as deformable layers and heads of detectors do."""
    c, h, w = x.dims
    if b.opset < 16 or b.recipe.batch is None or b.chance(0.5):
        domain = "com.microsoft" if b.opset < 16 or b.chance(0.3) else ""
        if b.recipe.batch is None:
            return rare_pool(b, x)
        grid = b.tensor(np.tanh(b.random(b.recipe.batch, h, w, 2)))
        return Tensor(b.op("GridSample", x.name, grid, domain=domain), (c, h, w))
    boxes = b.tensor(np.array([[0, 0, w - 1, h - 1]] * b.recipe.batch, np.float32))
    index = b.tensor(np.arange(b.recipe.batch, dtype=np.int64), "i")
    y = b.op("RoiAlign", x.name, boxes, index, output_height=2, output_width=2, sampling_ratio=1)
    return Tensor(y, (c, 2, 2))


@block(RARE_IMAGE)
def best_positions(b: Builder, x: Tensor) -> Tensor:
    """The largest entries of every row, or of all channels, in order."""
    c, h, w = x.dims
    if w < 2 or (c < 3 and b.chance(0.3)):
        return rare_pool(b, x)
    if b.chance(0.3):
        y = b.op("TopK", x.name, b.tensor(np.array([c - 1], np.int64), "k"), n=2, axis=1)
        return Tensor(y[0], (c - 1, h, w))
    y = b.op("TopK", x.name, b.tensor(np.array([w - 1], np.int64), "k"), n=2, axis=b.pick([3, -1]))
    return Tensor(y[0], (c, h, w - 1))


@block(RARE_IMAGE)
def running_sum(b: Builder, x: Tensor) -> Tensor:
    axis = b.tensor(np.array(b.pick([1, 2, -1]), np.int64), "i")
    return Tensor(b.op("CumSum", b.op("Tanh", x.name), axis, reverse=b.pick([0, 1])), x.dims)


@block(RARE_IMAGE)
def rare_norm(b: Builder, x: Tensor) -> Tensor:
    spread = x.dims[1] * x.dims[2] > 1
    kind = b.pick(["LpNormalization", "MeanVarianceNormalization"] if spread else ["LpNormalization"])
    moved = b.op("Add", b.op("Sigmoid", x.name), b.weight(*x.dims, share=False))
    if kind == "LpNormalization":
        y = b.op(kind, b.op("Exp", b.op("Tanh", moved)), axis=b.pick([1, 2, -1]), p=2)
    else:
        wide = b.op("Mul", moved, b.scalar(4))
        y = b.op(kind, wide, axes=b.pick([[2, 3], [0, 2, 3], [1, 2, 3]]))
    return Tensor(b.op("Tanh", y), x.dims)


@block(RARE_IMAGE)
def like(b: Builder, x: Tensor) -> Tensor:
    """Cast to the type of another tensor; the number of entries read as data."""
    if b.opset < 15 or b.chance(0.5):
        size = b.op("Cast", b.op("Size", x.name), to=1)
        if b.recipe.batch is None:
            return Tensor(b.op("Add", x.name, b.op("Sigmoid", b.op("Log", size))), x.dims)
        return Tensor(b.op("Div", x.name, b.op("Sqrt", size)), x.dims)
    return Tensor(b.op("CastLike", x.name, b.tensor(b.random(7))), x.dims)


@block(RARE_IMAGE)
def fused_conv(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    out = b.pick([4, 6, 8])
    weight = b.tensor(b.random(out, c, 1, 1, scale=c**-0.5))
    y = b.op("FusedConv", x.name, weight, b.tensor(b.random(out)), domain="com.microsoft", activation="Relu")
    return Tensor(y, (out, h, w))


@block(RARE_IMAGE)
def log_softmax(b: Builder, x: Tensor) -> Tensor:
    axis = 3 if b.opset < 13 else b.pick([1, 2, -1])
    return Tensor(b.op("LogSoftmax", x.name, axis=axis), x.dims)


@block(RARE_IMAGE)
def einsum_ellipsis(b: Builder, x: Tensor) -> Tensor:
    if b.opset < 12:
        return fused_conv(b, x)
    c, h, w = x.dims
    out = b.pick([4, 6])
    turned = b.op("Transpose", x.name, perm=[0, 2, 3, 1])
    y = b.op("Einsum", turned, b.weight(out, c, fan=c), equation="...c,oc->...o")
    return Tensor(b.op("Transpose", y, perm=[0, 3, 1, 2]), (out, h, w))


# -- tokens -------------------------------------------------------------------------------------------


@block(RARE_TOKENS)
def fused_tokens(b: Builder, x: Tensor) -> Tensor:
    """onnxruntime's fused operators of a transformer."""
    t, d = x.dims
    inner = b.pick([6, 8])
    y = b.op(
        "FusedMatMul", x.name, b.tensor(b.random(inner, d, scale=d**-0.5)), domain="com.microsoft", transB=1
    )
    kind = b.pick(["Gelu", "QuickGelu", "FastGelu", "BiasGelu"])
    more = [b.tensor(b.random(inner))] if kind == "BiasGelu" else []
    y = b.op(kind, y, *more, domain="com.microsoft")
    y = b.linear(Tensor(y, (t, inner)), d)
    scale = b.tensor(b.random(d) + 2)
    if b.chance(0.5):
        norm = b.op(
            "SkipSimplifiedLayerNormalization", x.name, y.name, scale, domain="com.microsoft", epsilon=1e-2
        )
    else:
        norm = b.op(
            "SkipLayerNormalization", x.name, y.name, scale, b.tensor(b.random(d)), domain="com.microsoft",
            epsilon=1e-2,
        )  # fmt: skip
    return Tensor(norm, x.dims)


@block(RARE_TOKENS)
def attention_packed(b: Builder, x: Tensor) -> Tensor:
    """One operator from the tokens to the weighted values."""
    t, d = x.dims
    heads, width = b.pick([(2, 4), (3, 2)])
    packed = b.tensor(b.random(d, 3 * heads * width, scale=d**-0.5))
    bias = b.tensor(b.random(3 * heads * width))
    y = b.op("Attention", x.name, packed, bias, domain="com.microsoft", num_heads=heads)
    return b.linear(Tensor(y, (t, heads * width)), d)
