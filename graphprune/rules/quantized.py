"""onnxruntime's quantised operators (com.microsoft QLinear*): as the plain operator, scales aside."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.coupler import Coupler
from graphprune.graph import Node
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.rules.matmul import gemm_like
from graphprune.rules.movement import concat
from graphprune.rules.registry import operand, rule
from graphprune.rules.spatial import in_space


@rule("com.microsoft::QLinearAdd", "com.microsoft::QLinearMul")
def qlinear_broadcast(
    c: Coupler, n: Node, a: Labels, a_scale: Labels, a_zero: Labels | None, b: Labels, *_: Labels | None
) -> Labels:
    """Operands broadcast; positions that meet go together."""
    return c.broadcast(n, [a, b])


@rule("com.microsoft::QLinearSigmoid", "com.microsoft::QLinearLeakyRelu", settle=False)
def qlinear_unary(c: Coupler, n: Node, x: Labels, *_: Labels | None) -> Labels:
    """One tensor in, the same positions out."""
    return x


@rule("com.microsoft::QLinearGlobalAveragePool", "com.microsoft::QLinearAveragePool")
def qlinear_pool(c: Coupler, n: Node, x: Labels, *_: Labels | None) -> Labels:
    """Channels pass."""
    shape = n.outputs[0].shape or ()
    if n.attr("channels_last", 0):
        c.freeze_all(x, Reason.MODE, n)
        return Labels.untracked(shape)
    return in_space(c, n, x, shape)


@rule("com.microsoft::QLinearConcat", settle=False)
def qlinear_concat(
    c: Coupler, n: Node, scale: Labels, zero: Labels, *inputs: Labels
) -> Labels | Sequence[Labels]:
    """Along a tracked axis labels are joined; along another the operands tie."""
    return concat(c, n, *inputs[::3])


@rule("com.microsoft::QGemm")
def qgemm(
    c: Coupler, n: Node, a: Labels, a_scale: Labels, a_zero: Labels, b: Labels, b_scale: Labels,
    b_zero: Labels, bias: Labels | None = None, *_: Labels | None,
) -> Labels:  # fmt: skip
    """As Gemm; per-column scales and zero points are sliced with the output columns."""
    out = gemm_like(c, n, operand(n.input(0)), a, operand(n.input(3)), b)
    return c.broadcast(n, [out, b_scale, b_zero, *([] if bias is None else [bias])])
