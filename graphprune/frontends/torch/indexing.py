"""Selection by position: slices, single positions, index tensors, embeddings."""

from __future__ import annotations

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
