"""Matrix products: Gemm, MatMul, Einsum, their integer forms, and embedding look-ups."""

from __future__ import annotations

import string
from collections.abc import Sequence

from graphprune import labels as lab
from graphprune.coupler import Coupler
from graphprune.graph import Node, Value
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.rules.registry import operand, rule


@rule("MatMul", "MatMulInteger", "com.microsoft::FusedMatMul")
def matmul(c: Coupler, n: Node, a: Labels, b: Labels, *_: Labels | None) -> Labels:
    """... m k, ... k n -> ... m n: k ties, the weight's n is new, activations keep theirs."""
    left, right = operand(n.input(0)), operand(n.input(1))
    batch = string.ascii_uppercase[: max(a.rank, b.rank, 2) - 2]
    if n.op.endswith("FusedMatMul") and (n.attr("transBatchA", 0) or n.attr("transBatchB", 0)):
        return unknown_layout(c, n, a, b)
    am = "km" if n.attr("transA", 0) else "mk"
    bn = "nk" if n.attr("transB", 0) else "kn"
    first = "k" if a.rank == 1 else batch[max(0, len(batch) - (a.rank - 2)) :] + am
    second = "k" if b.rank == 1 else batch[max(0, len(batch) - (b.rank - 2)) :] + bn
    out = batch + ("m" if a.rank > 1 else "") + ("n" if b.rank > 1 else "")
    return c.contract(n, [(left, a, first), (right, b, second)], out)


def unknown_layout(c: Coupler, n: Node, *operands: Labels) -> Labels:
    """A layout we do not read: everything stays."""
    for x in operands:
        c.freeze_all(x, Reason.MODE, n)
    return Labels.untracked(n.outputs[0].shape or ())


@rule("Gemm")
def gemm(c: Coupler, n: Node, a: Labels, b: Labels, bias: Labels | None = None) -> Labels:
    """m k, k n -> m n with transposes; the bias broadcasts."""
    out = gemm_like(c, n, operand(n.input(0)), a, operand(n.input(1)), b)
    return out if bias is None else c.broadcast(n, [out, bias])


def gemm_like(c: Coupler, n: Node, left: Value, a: Labels, right: Value, b: Labels) -> Labels:
    """The product of two matrices under the attributes transA and transB."""
    first = "km" if n.attr("transA", 0) else "mk"
    second = "nk" if n.attr("transB", 0) else "kn"
    return c.contract(n, [(left, a, first), (right, b, second)], "mn")


@rule("QLinearMatMul")
def qlinear_matmul(
    c: Coupler, n: Node, a: Labels, a_scale: Labels, a_zero: Labels, b: Labels, b_scale: Labels,
    b_zero: Labels, y_scale: Labels, y_zero: Labels,
) -> Labels:  # fmt: skip
    """As MatMul; per-column scales and zero points are sliced with the output columns."""
    batch = string.ascii_uppercase[: max(a.rank, b.rank, 2) - 2]
    left, right = operand(n.input(0)), operand(n.input(3))
    first = batch[max(0, len(batch) - (a.rank - 2)) :] + "mk"
    second = batch[max(0, len(batch) - (b.rank - 2)) :] + "kn"
    out = c.contract(n, [(left, a, first), (right, b, second)], batch + "mn")
    return c.broadcast(n, [out, b_scale, b_zero])


@rule("Einsum")
def einsum(c: Coupler, n: Node, *operands: Labels) -> Labels:
    """A generalised matrix product; repeated letters freeze."""
    equation = str(n.attr("equation", "")).replace(" ", "")
    inputs, arrow, out = equation.partition("->")
    letters = inputs.split(",")
    if not arrow or len(letters) != len(operands):
        return unknown_layout(c, n, *operands)
    *letters, out = _spelled_out([*letters, out], [x.rank for x in operands])
    if "." in out or not all(len(set(t)) == len(t) == x.rank for t, x in zip(letters, operands, strict=True)):
        return unknown_layout(c, n, *operands)
    values = [operand(v) for v in n.inputs]
    return c.contract(n, list(zip(values, operands, letters, strict=True)), out)


def _spelled_out(terms: Sequence[str], ranks: Sequence[int]) -> list[str]:
    """Letters for the axes that an ellipsis stands for, aligned at the right; the result has those of the longest."""
    spare = "".join(x for x in string.ascii_letters if not any(x in t for t in terms))
    counts = [r - len(t) + 3 for t, r in zip(terms, ranks, strict=False) if "..." in t]
    if any(not 0 <= count <= len(spare) for count in counts):
        return list(terms)
    lengths = [*ranks, max(counts, default=0) + len(terms[-1]) - 3]
    return [
        t.replace("...", spare[len(spare) - (r - len(t) + 3) :]) for t, r in zip(terms, lengths, strict=True)
    ]


def embedding(c: Coupler, n: Node, table: Labels, axis: int, index_rank: int) -> Labels:
    """A look-up in a stored table: the other axes of the table are new channel axes."""
    table = c.freeze_axes(table, [axis], Reason.DATA_DEPENDENT, n)
    shape = n.outputs[0].shape or ()
    for other in range(axis + 1, table.rank):
        c.channels(lab.vector(table, other), n)
    vectors = {
        (a if a < axis else a + index_rank - 1): lab.vector(table, a) for a in range(table.rank) if a != axis
    }
    return Labels.vectors(shape, vectors)
