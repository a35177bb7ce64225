"""Reductions, what competes along an axis (softmax, arg max, top k), and running sums."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import fx

from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.fx.windows import axis_of, pad
from graphprune.graph import Node


def axes_of(c: Conversion, n: Node) -> list[int]:
    """Axes to reduce, from the attribute or the second input; every axis where none is named."""
    given = _given_axes(c, n)
    return given or list(range(len(c.shape(n))))


def _given_axes(c: Conversion, n: Node) -> list[int]:
    given = n.attr("axes") if n.input(1) is None else c.literal(n, 1)
    return [] if given is None else [int(a) for a in given]


def _reduces(c: Conversion, n: Node) -> bool:
    """False where the axes are empty and that means none."""
    return not n.attr("noop_with_empty_axes", 0) or bool(_given_axes(c, n))


def _keep(n: Node) -> bool:
    return bool(n.attr("keepdims", 1))


def _floats(c: Conversion, n: Node) -> None:
    """Refuse an integer mean or norm, which torch does not have."""
    value = n.input(0)
    if value is not None and value.dtype.startswith(("int", "uint", "bool")):
        raise c.refuse(n, f"it reduces {value.dtype} numbers; cast them to float32 first")


def _plain(c: Conversion, n: Node, x: fx.Node, function: Callable[..., torch.Tensor]) -> fx.Node:
    return c.emit(function, x, axes_of(c, n), _keep(n)) if _reduces(c, n) else x


@converter("ReduceMax", literals=(1,))
def reduce_max(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """torch.amax."""
    return _plain(c, n, x, torch.amax)


@converter("ReduceMin", literals=(1,))
def reduce_min(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """torch.amin."""
    return _plain(c, n, x, torch.amin)


@converter("ReduceSum", literals=(1,))
def reduce_sum(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """torch.sum."""
    return _plain(c, n, x, torch.sum)


@converter("ReduceMean", literals=(1,))
def reduce_mean(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """torch.mean."""
    _floats(c, n)
    return _plain(c, n, x, torch.mean)


@converter("ReduceProd", literals=(1,))
def reduce_prod(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """torch.prod over one axis after the other, the last first."""
    rank = len(c.shape(n))
    for axis in sorted((a % rank for a in axes_of(c, n)), reverse=True) if _reduces(c, n) else ():
        x = c.emit(torch.prod, x, axis, _keep(n))
    return x


@converter("ReduceSumSquare", literals=(1,))
def reduce_sum_square(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """Sum of squares."""
    return _plain(c, n, c.emit(torch.square, x), torch.sum)


@converter("ReduceL1", literals=(1,))
def reduce_l1(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """Sum of absolute values."""
    return _plain(c, n, c.emit(torch.abs, x), torch.sum)


@converter("ReduceL2", literals=(1,))
def reduce_l2(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """Euclidean norm, whose gradient torch defines as 0 at 0."""
    _floats(c, n)
    if not _reduces(c, n):
        return c.emit(torch.abs, x)
    return c.emit(torch.linalg.vector_norm, x, 2, axes_of(c, n), _keep(n))


@converter("ReduceLogSum", literals=(1,))
def reduce_log_sum(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """Logarithm of the sum."""
    _floats(c, n)
    return c.emit(torch.log, _plain(c, n, x, torch.sum))


@converter("ReduceLogSumExp", literals=(1,))
def reduce_log_sum_exp(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """torch.logsumexp."""
    _floats(c, n)
    return _plain(c, n, x, torch.logsumexp)


@converter("Softmax")
def softmax(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Along one axis; before opset 13 over all axes from ``axis`` on, taken as one."""
    return _along_axis(c, n, x, torch.softmax)


@converter("LogSoftmax")
def log_softmax(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """As Softmax, in logarithms."""
    return _along_axis(c, n, x, torch.log_softmax)


@converter("Hardmax")
def hardmax(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """1 at the first maximum, 0 elsewhere; axes as Softmax. It has no gradient."""
    flat, axis = _competing(c, n, x)
    first = c.emit(torch.argmax, flat, axis, True)
    y = c.emit(torch.scatter, c.emit(torch.zeros_like, flat), axis, first, 1.0)
    return y if flat is x else c.method("reshape_as", y, x)


def _along_axis(c: Conversion, n: Node, x: fx.Node, function: Callable[..., torch.Tensor]) -> fx.Node:
    flat, axis = _competing(c, n, x)
    y = c.emit(function, flat, axis)
    return y if flat is x else c.method("reshape_as", y, x)


def _competing(c: Conversion, n: Node, x: fx.Node) -> tuple[fx.Node, int]:
    """``x``, its competing axes made one, and that axis."""
    if n.opset >= 13:
        return x, n.attr("axis", -1)
    axis = axis_of(c, n, 1)
    if axis == len(c.shape(n)) - 1:
        return x, axis
    return c.emit(torch.flatten, x, axis), -1


@converter("ArgMax")
def arg_max(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """torch.argmax: the first of equals, or the last where asked."""
    return _arg(c, n, x, torch.argmax)


@converter("ArgMin")
def arg_min(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """torch.argmin: the first of equals, or the last where asked."""
    return _arg(c, n, x, torch.argmin)


def _arg(c: Conversion, n: Node, x: fx.Node, function: Callable[..., torch.Tensor]) -> fx.Node:
    axis = n.attr("axis", 0)
    if not n.attr("select_last_index", 0):
        return c.emit(function, x, axis, _keep(n))
    found = c.emit(function, c.emit(torch.flip, x, [axis]), axis, _keep(n))
    last = c.emit(operator.sub, c.method("size", x, axis), 1)
    return c.emit(torch.sub, last, found)


@converter("TopK", literals=(1,))
def top_k(c: Conversion, n: Node, x: fx.Node, _: None = None) -> list[fx.Node]:
    """A stable sort, cut: unlike torch.topk it puts the first of equals first, as the operator must."""
    axis = n.attr("axis", -1)
    counts = c.ints(n, 1)
    k = n.attr("k") if counts is None else counts[0]
    ordered = c.emit(torch.sort, x, stable=True, dim=axis, descending=bool(n.attr("largest", 1)))
    return [c.emit(torch.narrow, c.emit(operator.getitem, ordered, i), axis, 0, k) for i in (0, 1)]


@converter("CumSum", literals=(1,))
def cumsum(c: Conversion, n: Node, x: fx.Node, _: None = None) -> fx.Node:
    """torch.cumsum; ``exclusive`` shifts the input by one, ``reverse`` runs from the end."""
    given = c.literal(n, 1)
    if given is None:
        raise c.refuse(n, "it has no axis")
    axis = int(given.item())
    if n.attr("reverse", 0):
        x = c.emit(torch.flip, x, [axis])
    if n.attr("exclusive", 0):
        rank = len(c.shape(n))
        after = [0] * (rank - axis % rank - 1)
        x = pad(c, x, [1, *after], [-1, *after])
    y = c.emit(torch.cumsum, x, axis)
    return c.emit(torch.flip, y, [axis]) if n.attr("reverse", 0) else y
