"""Selection by position: slices, single positions, index tensors, embeddings."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.registry import operator


@operator("slice", "slice_copy")
def slice_(
    c: Conversion, x: ir.Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> ir.Value:
    """Positions from start to end."""
    if not isinstance(start, int | None) or not isinstance(end, int | None):
        raise c.refuse("its bounds depend on the batch size")
    first, last = start or 0, (1 << 63) - 1 if end is None else end
    if (first, step) == (0, 1) and last >= (1 << 62):
        return x  # all of it
    axes, steps = c.ints([c.axis(x, dim)], "axes"), c.ints([step], "step")
    return c.emit("Slice", x, c.ints([first], "start"), c.ints([last], "end"), axes, steps)


@operator("slice_scatter")
def slice_scatter(
    c: Conversion, x: ir.Value, src: ir.Value, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> ir.Value:  # fmt: skip
    """``x`` with ``src`` in place of the positions from start to end."""
    axis = c.axis(x, dim)
    size = c.fake(x).shape[axis]
    if (start or 0, step) == (0, 1) and (end is None or str(c.fake(src).shape[axis]) == str(size)):
        return c.emit("Identity", src)
    size = c.static(x, axis)
    if not isinstance(start, int | None) or not isinstance(end, int | None) or step != 1:
        raise c.refuse("its bounds depend on the batch size, or its step is not 1")
    first, last, _ = slice(start, end).indices(size)
    return _replaced(c, x, src, axis, first, last, size)


@operator("select_scatter")
def select_scatter(c: Conversion, x: ir.Value, src: ir.Value, dim: int, index: int) -> ir.Value:
    """``x`` with ``src`` in place of one position."""
    axis = c.axis(x, dim)
    size = c.static(x, axis)
    first = index % size
    return _replaced(c, x, c.emit("Unsqueeze", src, c.ints([axis], "axes")), axis, first, first + 1, size)


def _replaced(
    c: Conversion, x: ir.Value, src: ir.Value, axis: int, first: int, last: int, size: int
) -> ir.Value:
    axes = c.ints([axis], "axis")
    parts = [src]
    if first > 0:
        parts.insert(0, c.emit("Slice", x, c.ints([0], "zero"), c.ints([first], "first"), axes))
    if last < size:
        parts.append(c.emit("Slice", x, c.ints([last], "last"), c.ints([size], "size"), axes))
    return c.emit("Concat", *parts, axis=axis)


@operator("unfold")
def unfold(c: Conversion, x: ir.Value, dimension: int, size: int, step: int) -> ir.Value:
    """Windows of an axis; positions within a window become the last axis."""
    axis, rank = c.axis(x, dimension), c.rank(x)
    starts = np.arange(0, c.static(x, axis) - size + 1, step, dtype=np.int64)
    windows = c.constant(starts[:, None] + np.arange(size), "windows")
    cut = c.emit("Gather", x, windows, axis=axis)
    order = [a for a in range(rank + 1) if a != axis + 1]
    return c.emit("Transpose", cut, perm=[*order, axis + 1])


@operator("im2col")
def im2col(
    c: Conversion,
    x: ir.Value,
    kernel_size: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> ir.Value:
    """Windows of an image as columns: (batch, channels x positions in a window, windows)."""
    channels, image, counts = c.static(x, 1), [c.static(x, 2), c.static(x, 3)], []
    edges = [0, 0, *padding]
    if any(padding):
        x = c.emit("Pad", x, c.ints([*edges, *edges], "padding"), c.number(0, c.out.dtype, "zero"))
    for space, axis in enumerate((2, 4)):  # the second axis of space has moved by the first one's windows
        size = image[space] + 2 * padding[space]
        starts = np.arange(
            0, size - dilation[space] * (kernel_size[space] - 1), stride[space], dtype=np.int64
        )
        offsets = dilation[space] * np.arange(kernel_size[space])
        counts.append(len(starts))
        x = c.emit("Gather", x, c.constant(offsets[:, None] + starts, f"windows{space}"), axis=axis)
    x = c.emit("Transpose", x, perm=[0, 1, 2, 4, 3, 5])
    return c.emit("Reshape", x, c.ints([-1, channels * math.prod(kernel_size), math.prod(counts)], "size"))


@operator("narrow")
def narrow(c: Conversion, x: ir.Value, dim: int, start: int, length: int) -> ir.Value:
    """``length`` positions from start."""
    return slice_(c, x, dim, start, start + length)


@operator("select", "select_copy")
def select(c: Conversion, x: ir.Value, dim: int, index: int) -> ir.Value:
    """One position; the axis goes."""
    if not isinstance(index, int):
        raise c.refuse("its position depends on the batch size")
    return c.emit("Gather", x, c.constant(np.int64(index), "index"), axis=c.axis(x, dim))


@operator("index_select")
def index_select(c: Conversion, x: ir.Value, dim: int, index: ir.Value) -> ir.Value:
    """Positions that an index tensor names."""
    return c.emit("Gather", x, index, axis=c.axis(x, dim))


@operator("index", "_unsafe_index")
def index(c: Conversion, x: ir.Value, indices: list[ir.Value | None]) -> ir.Value:
    """Positions along one axis that an index tensor names."""
    used = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if len(used) != 1 or not _is_integer(c, used[0][1]):
        raise c.refuse("it indexes several axes at once, or by a mask")
    axis, positions = used[0]
    return c.emit("Gather", x, positions, axis=axis)


def _is_integer(c: Conversion, x: ir.Value) -> bool:
    dtype = c.fake(x).dtype
    return not dtype.is_floating_point and str(dtype) != "torch.bool"


@operator("gather")
def gather(c: Conversion, x: ir.Value, dim: int, index: ir.Value, **_: object) -> ir.Value:
    """One position of the axis for every element of the index tensor."""
    return c.emit("GatherElements", x, index, axis=c.axis(x, dim))


@operator("embedding")
def embedding(c: Conversion, weight: ir.Value, indices: ir.Value, **_: object) -> ir.Value:
    """Rows of a table."""
    return c.emit("Gather", weight, indices, axis=0)
