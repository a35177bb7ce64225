"""Operators that pick or place elements by index: slices, gathers, scatters."""

from __future__ import annotations

import operator

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from graphprune.fx.conversion import Conversion
from graphprune.fx.movement import axes_of
from graphprune.fx.registry import converter
from graphprune.graph import Node

ENDLESS = 2**31 - 1
"""Slice ends from here on mean "to the end"."""


# -- slices -----------------------------------------------------------------------------------------


@converter("Slice", literals=(1, 2, 3, 4), arithmetic=True)
def slice_(c: Conversion, n: Node, x: fx.Node, *_: None) -> fx.Node:
    """Ranges of axes; bounds may follow the batch size."""
    starts = n.attr("starts") or c.ints(n, 1) or []
    ends = n.attr("ends") or c.ints(n, 2) or []
    axes = axes_of(c, n, 3) or list(range(len(starts)))
    steps = c.literal(n, 4)
    strides = [1] * len(starts) if steps is None else steps.reshape(-1).tolist()
    cuts: dict[int, slice] = {}
    for start, end, axis, step in zip(starts, ends, axes, strides, strict=True):
        axis %= len(c.shape(n, 0)) if axis < 0 else axis + 1
        if step < 0:
            x = _backwards(c, n, x, slice(start, end, step), axis)
        elif not _is_whole(c, n, x, slice(start, end, step), axis):
            endless = isinstance(end, int) and end >= ENDLESS
            cuts[axis] = slice(start, None if endless else end, None if step == 1 else step)
    if not cuts:
        return x
    index = tuple(cuts.get(a, slice(None)) for a in range(max(cuts) + 1))
    return c.emit(operator.getitem, x, index)


def _is_whole(c: Conversion, n: Node, x: fx.Node, cut: slice, axis: int) -> bool:
    """Whether the cut takes everything: for good, or the fixed batch of the file."""
    if cut.step != 1 or cut.start != 0 or not isinstance(cut.stop, int):
        return False
    if cut.stop >= ENDLESS:
        return True
    if c.fixed_batch is None or cut.stop < c.shape(n, 0)[axis]:
        return False
    sizes = c.measured_sizes(x)
    return sizes is not None and sizes[axis][0] != 0


def _backwards(c: Conversion, n: Node, x: fx.Node, cut: slice, axis: int) -> fx.Node:
    """torch has no negative steps: flip what is whole, look up the rest."""
    size = c.shape(n, 0)[axis]
    if not isinstance(cut.start, int) or not isinstance(cut.stop, int):
        raise c.refuse(n, "a slice with a negative step depends on the batch size")
    stop = None if cut.stop < -size else cut.stop  # before the first element
    index = np.arange(size)[slice(cut.start, stop, cut.step)]
    if cut.step == -1 and index.size == size:
        return c.emit(torch.flip, x, (axis,))
    return c.emit(torch.index_select, x, axis, c.buffer(index, "slice_index"))


# -- gathers ----------------------------------------------------------------------------------------


@converter("Gather", literals=(1,))
def gather(c: Conversion, n: Node, x: fx.Node, _: None) -> fx.Node:
    """Entries of ``axis``; a table of embeddings is looked up by F.embedding."""
    axis = n.attr("axis", 0)
    table = n.input(0)
    if c.is_literal(n, 1):
        index = c.literal(n, 1)
        assert index is not None
        if index.ndim == 0:
            return c.emit(torch.select, x, axis, int(index))
        if table is not None and table.shape is not None:
            index = index % table.shape[axis] if table.shape[axis] > 0 else index
            if index.ndim == 1:
                return c.emit(torch.index_select, x, axis, c.buffer(index, "gather_index"))
        indices = c.buffer(index, "gather_index")
    else:
        found = c.operand(n, 1)
        assert found is not None
        indices = found
        if table is not None and table.constant and table.rank == 2 and axis in (0, -2):
            rows = c.emit(torch.remainder, indices, c.method("size", x, 0))  # -1 is the last
            return c.emit(F.embedding, rows, x)
    before = axis if axis >= 0 else axis + len(c.shape(n, 0))
    return c.emit(operator.getitem, x, (*[slice(None)] * before, indices))


@converter("GatherElements", arithmetic=True)
def gather_elements(c: Conversion, n: Node, x: fx.Node, index: fx.Node) -> fx.Node:
    """One element per index, along ``axis``."""
    axis = n.attr("axis", 0)
    return c.emit(torch.gather, x, axis, _positive(c, x, axis, index))


@converter("GatherND", arithmetic=True)
def gather_nd(c: Conversion, n: Node, x: fx.Node, index: fx.Node) -> fx.Node:
    """The last axis of the indices addresses the axes after the batch dimensions."""
    batch_dims = n.attr("batch_dims", 0)
    where = _addresses(c, n, index, batch_dims)
    return c.emit(operator.getitem, x, where)


def _addresses(c: Conversion, n: Node, index: fx.Node, batch_dims: int = 0) -> tuple[fx.Node, ...]:
    """Indices (..., k) as k index tensors, after one per batch dimension that counts along it."""
    shape = c.shape(n, 1)
    parts = c.emit(torch.unbind, index, -1)
    device = c.emit(getattr, index, "device")
    leading = []
    for axis in range(batch_dims):
        counter = c.emit(torch.arange, c.method("size", index, axis), device=device)
        sizes = [-1 if a == axis else 1 for a in range(len(shape) - 1)]
        leading.append(c.emit(torch.reshape, counter, sizes))
    return (*leading, *(c.emit(operator.getitem, parts, i) for i in range(shape[-1])))


def _positive(c: Conversion, x: fx.Node, axis: int, index: fx.Node) -> fx.Node:
    """Indices that torch.gather takes: int64, counted from the front."""
    return c.emit(torch.remainder, c.method("long", index), c.method("size", x, axis))


@converter("Compress", arithmetic=True)
def compress(c: Conversion, n: Node, x: fx.Node, condition: fx.Node) -> fx.Node:
    """Entries of ``axis`` (or of the flattened tensor) where the condition holds."""
    axis = n.attr("axis")
    if axis is None:
        x, axis = c.emit(torch.flatten, x), 0
    chosen = c.emit(operator.getitem, c.emit(torch.nonzero, condition, as_tuple=True), 0)
    return c.emit(torch.index_select, x, axis, chosen)


# -- scatters ---------------------------------------------------------------------------------------

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@converter("ScatterElements", "Scatter", arithmetic=True)
def scatter_elements(c: Conversion, n: Node, x: fx.Node, index: fx.Node, updates: fx.Node) -> fx.Node:
    """One element per index, along ``axis``, replaced by or combined with an update."""
    axis, reduction = n.attr("axis", 0), n.attr("reduction", "none")
    places = _positive(c, x, axis, index)
    if reduction == "none":
        return c.emit(torch.scatter, x, axis, places, updates)
    return c.emit(torch.scatter_reduce, x, axis, places, updates, reduce=_REDUCTIONS[reduction])


@converter("ScatterND", arithmetic=True)
def scatter_nd(c: Conversion, n: Node, x: fx.Node, index: fx.Node, updates: fx.Node) -> fx.Node:
    """Slices of x replaced by, or added to, the updates."""
    reduction = n.attr("reduction", "none")
    if reduction not in ("none", "add"):
        raise c.refuse(n, f"the reduction {reduction!r} is not supported")
    return c.emit(torch.index_put, x, _addresses(c, n, index), updates, accumulate=reduction == "add")


# -- by position ------------------------------------------------------------------------------------


@converter("Trilu", literals=(1,), arithmetic=True)
def triangle(c: Conversion, n: Node, x: fx.Node, *_: None) -> fx.Node:
    """The upper or lower triangle, zeros elsewhere."""
    k = c.literal(n, 1)
    return c.emit(torch.triu if n.attr("upper", 1) else torch.tril, x, 0 if k is None else int(k.item()))


@converter("OneHot", literals=(1, 2), arithmetic=True)
def one_hot(c: Conversion, n: Node, index: fx.Node, *_: None) -> fx.Node:
    """``values[1]`` where an index is, ``values[0]`` elsewhere, along a new ``axis``; other indices leave none."""
    depth, values = c.literal(n, 1), c.literal(n, 2)
    if depth is None or values is None:
        raise c.refuse(n, "a mandatory input is missing")
    classes = int(depth.item())
    off, on = (c.buffer(v, "one_hot_value") for v in values)
    rank = len(c.shape(n, 0)) + 1
    axis = n.attr("axis", -1) % rank
    shape = [-1 if a == axis else 1 for a in range(rank)]
    count = c.buffer(np.arange(classes).reshape(shape), "one_hot_classes")
    wrapped = c.emit(torch.where, c.emit(operator.lt, index, 0), c.emit(operator.add, index, classes), index)
    hit = c.emit(torch.eq, c.emit(torch.unsqueeze, wrapped, axis), count)
    return c.emit(torch.where, hit, on, off)


_SAMPLING = {"linear": "bilinear", "cubic": "bicubic"}
"""Names that opset 20 changed."""


@converter("GridSample", arithmetic=True)
def grid_sample(c: Conversion, n: Node, x: fx.Node, grid: fx.Node) -> fx.Node:
    """x (batch, channel, *spatial) read at the positions that the grid gives in [-1, 1]."""
    mode = n.attr("mode", "linear")
    return c.emit(
        F.grid_sample,
        x,
        grid,
        mode=_SAMPLING.get(mode, mode),
        padding_mode=n.attr("padding_mode", "zeros"),
        align_corners=bool(n.attr("align_corners", 0)),
    )
