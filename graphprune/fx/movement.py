"""Operators that move elements about without looking at them: shapes, order, parts, copies."""

from __future__ import annotations

import operator

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from graphprune.fx.batch import free_axis
from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.graph import Node

Sizes = list[int | fx.Node]


def axes_of(c: Conversion, n: Node, position: int) -> list[int] | None:
    """Axes from the attribute of older opsets or the input of newer ones; None where neither is there.

    Raises ConversionError where the input is not constant.
    """
    axes = n.attr("axes")
    if axes is None:
        array = c.literal(n, position)
        axes = None if array is None else array.reshape(-1).tolist()
    return None if axes is None else [int(a) for a in axes]


@converter("Identity", arithmetic=True)
def identity(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """The same tensor under another name."""
    return x


# -- shapes -----------------------------------------------------------------------------------------


@converter("Reshape", literals=(1,), arithmetic=True)
def reshape(c: Conversion, n: Node, x: fx.Node, _: None) -> fx.Node:
    """0 in the target is the input's own size; a batch size written into the target is freed."""
    target: Sizes = list(c.ints(n, 1) or [])
    if not n.attr("allowzero", 0):
        target = [c.method("size", x, i) if s == 0 else s for i, s in enumerate(target)]
    return c.emit(torch.reshape, x, _freed(c, n, x, target))


def _freed(c: Conversion, n: Node, x: fx.Node, target: Sizes) -> Sizes:
    """``target`` with the runtime batch size in the place of the one that the file has fixed."""
    shape = n.outputs[0].shape
    sizes = c.measured_sizes(x) if c.fixed_batch and shape is not None else None
    found = free_axis(sizes, shape, c.fixed_batch) if sizes and shape and c.fixed_batch else None
    if found is None:
        return target
    axis, multiple = found
    entry = target[axis]
    if not isinstance(entry, int) or entry == -1:
        return target
    free: int | fx.Node = c.size((multiple, 0)) if -1 in target else -1
    return [*target[:axis], free, *target[axis + 1 :]]


@converter("Flatten", arithmetic=True)
def flatten(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Two axes: what is before ``axis`` and what is from it on."""
    rank, axis = len(c.shape(n, 0)), n.attr("axis", 1)
    axis += rank if axis < 0 else 0
    if axis == 0:
        return c.emit(torch.reshape, x, (1, -1))
    if axis == rank:
        return c.emit(torch.reshape, x, (-1, 1))
    if axis > 1:
        x = c.emit(torch.flatten, x, 0, axis - 1)
    return c.emit(torch.flatten, x, 1)


@converter("Squeeze", literals=(1,), arithmetic=True)
def squeeze(c: Conversion, n: Node, x: fx.Node, *_: None) -> fx.Node:
    """Axes of size 1 dropped; without axes, those that have size 1 whatever the batch size."""
    axes = axes_of(c, n, 1)
    if axes is None:
        axes = [i for i, s in enumerate(c.shape(n, 0)) if s == 1]
    return c.emit(torch.squeeze, x, tuple(axes))


@converter("Unsqueeze", literals=(1,), arithmetic=True)
def unsqueeze(c: Conversion, n: Node, x: fx.Node, *_: None) -> fx.Node:
    """Axes of size 1 put in; their numbers count the output's axes."""
    axes = axes_of(c, n, 1) or []
    if any(a < 0 for a in axes):
        rank = len(c.shape(n, 0)) + len(axes)
        axes = [a % rank for a in axes]
    for axis in sorted(axes):
        x = c.emit(torch.unsqueeze, x, axis)
    return x


@converter("Expand", literals=(1,), arithmetic=True)
def expand(c: Conversion, n: Node, x: fx.Node, _: None) -> fx.Node:
    """Axes of size 1 repeated; ONNX broadcasts both ways, so that 1 in the target keeps a size."""
    shape, given = c.shape(n, 0), c.ints(n, 1) or []
    target: Sizes = [*[1] * (len(shape) - len(given)), *given]
    new = len(target) - len(shape)
    kept = [s if i < new else _expanded(shape[i - new], s) for i, s in enumerate(target)]
    if c.fixed_batch not in (None, 1) and kept[0] == c.fixed_batch:
        kept[0] = c.size((1, 0))  # a row (a class token) for every sample
    return c.method("expand", x, kept)


def _expanded(size: int, wanted: int | fx.Node) -> int | fx.Node:
    return -1 if isinstance(wanted, int) and wanted in (1, size) else wanted


# -- order ------------------------------------------------------------------------------------------


@converter("Transpose", arithmetic=True)
def transpose(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Axes in the order ``perm``, or reversed."""
    perm = n.attr("perm")
    if perm is None:
        perm = list(reversed(range(len(c.shape(n, 0)))))
    return c.emit(torch.permute, x, tuple(perm))


@converter("DepthToSpace", arithmetic=True)
def depth_to_space(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Blocks of channels to blocks of the image; mode CRD is torch's pixel_shuffle."""
    block = n.attr("blocksize")
    if n.attr("mode", "DCR") == "CRD":
        return c.emit(F.pixel_shuffle, x, block)
    parts = c.emit(torch.unflatten, x, 1, (block, block, -1))  # batch, row, column, channel, h, w
    image = c.emit(torch.permute, parts, (0, 3, 4, 1, 5, 2))
    return c.emit(torch.flatten, c.emit(torch.flatten, image, 4, 5), 2, 3)


@converter("SpaceToDepth", arithmetic=True)
def space_to_depth(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Blocks of the image to blocks of channels; mode CRD is torch's pixel_unshuffle."""
    block = n.attr("blocksize")
    if n.attr("mode", "DCR") == "CRD":
        return c.emit(F.pixel_unshuffle, x, block)
    rows = c.emit(torch.unflatten, c.emit(torch.unflatten, x, 3, (-1, block)), 2, (-1, block))
    return c.emit(torch.flatten, c.emit(torch.permute, rows, (0, 3, 5, 1, 2, 4)), 1, 3)


# -- parts and copies -------------------------------------------------------------------------------


@converter("Concat", arithmetic=True)
def concat(c: Conversion, n: Node, *operands: fx.Node) -> fx.Node:
    """Joined along ``axis``; with a fixed batch of 1, a constant operand is repeated for other batches."""
    axis = n.attr("axis", 0)
    if c.fixed_batch == 1 and any(c.is_literal(n, i) for i in range(len(operands))):
        operands = _repeated(c, axis, operands)
    return c.emit(torch.cat, list(operands), axis)


def _repeated(c: Conversion, axis: int, operands: tuple[fx.Node, ...]) -> tuple[fx.Node, ...]:
    measured = [c.measured_sizes(x) for x in operands]
    if any(sizes is None for sizes in measured):
        return operands
    every = [sizes for sizes in measured if sizes is not None]
    rank = len(every[0])
    fit = [
        next((sizes[a] for sizes in every if sizes[a][0]), (0, -1)) if a != axis % rank else (0, -1)
        for a in range(rank)
    ]
    repeated = []
    for x, sizes in zip(operands, every, strict=True):
        wanted = [c.size(f) if s == (0, 1) else -1 for f, s in zip(fit, sizes, strict=True)]
        repeated.append(x if all(w == -1 for w in wanted) else c.method("expand", x, wanted))
    return tuple(repeated)


@converter("Split", literals=(1,), arithmetic=True)
def split(c: Conversion, n: Node, x: fx.Node, *_: None) -> list[fx.Node]:
    """Parts along ``axis``: of given sizes, or as many equal ones as there are outputs."""
    axis, count = n.attr("axis", 0), len(n.outputs)
    sizes = n.attr("split") or c.ints(n, 1)
    if sizes is None:
        total = c.shape(n, 0)[axis]
        most = -(-total // count)
        sizes = [max(min(most, total - i * most), 0) for i in range(count)]
    parts = c.emit(torch.split, x, sizes, axis)
    return [c.emit(operator.getitem, parts, i) for i in range(count)]


@converter("Tile", literals=(1,), arithmetic=True)
def tile(c: Conversion, n: Node, x: fx.Node, _: None) -> fx.Node:
    """Copies side by side, ``repeats`` along each axis."""
    return c.method("repeat", x, c.ints(n, 1))


@converter("Pad", literals=(1, 2, 3), arithmetic=True)
def pad(c: Conversion, n: Node, x: fx.Node, *_: None) -> fx.Node:
    """A border (or, where negative, a cut) on both ends of each axis."""
    shape = c.shape(n, 0)
    rank = len(shape)
    given = n.attr("pads")
    flat = [int(p) for p in given] if given is not None else [_number(c, n, p) for p in c.ints(n, 1) or []]
    chosen = c.literal(n, 3)
    axes = range(rank) if chosen is None else [int(a) % rank for a in chosen.reshape(-1)]
    before, after = flat[: len(flat) // 2], flat[len(flat) // 2 :]
    pads = {a: (b, e) for a, b, e in zip(axes, before, after, strict=True) if b or e}
    mode = n.attr("mode", "constant")
    if not pads:
        return x
    if mode == "constant":
        return c.emit(F.pad, x, _pairs(pads, rank), value=_fill(c, n))
    if mode == "wrap" or min(pads) < max(2, rank - 3) or rank < 3 or min(min(p) for p in pads.values()) < 0:
        return _pad_by_index(c, x, shape, pads, mode)
    # torch pads an image of one, two or three axes at once
    return c.emit(F.pad, x, _pairs(pads, rank, rank - 2), mode="replicate" if mode == "edge" else mode)


def _fill(c: Conversion, n: Node) -> float | fx.Node:
    if not c.is_literal(n, 2):
        return c.emit(torch.Tensor.item, c.operand(n, 2))
    value = c.literal(n, 2)
    return float(n.attr("value", 0.0) if value is None else value.reshape(-1)[0])


def _pairs(pads: dict[int, tuple[int, int]], rank: int, count: int | None = None) -> list[int]:
    """F.pad's order: the last axis first, down to the first padded one (or ``count`` axes)."""
    first = min(pads) if count is None else rank - count
    return [p for axis in reversed(range(first, rank)) for p in pads.get(axis, (0, 0))]


def _pad_by_index(
    c: Conversion, x: fx.Node, shape: tuple[int, ...], pads: dict[int, tuple[int, int]], mode: str
) -> fx.Node:
    """Any axis, in any mode that repeats elements: they are looked up one axis at a time."""
    for axis, (before, after) in pads.items():
        index = np.arange(shape[axis])[max(-before, 0) : shape[axis] - max(-after, 0)]
        index = np.pad(index, (max(before, 0), max(after, 0)), mode=mode)  # type: ignore[call-overload]
        x = c.emit(torch.index_select, x, axis, c.buffer(index, "pad_index"))
    return x


def _number(c: Conversion, n: Node, pad: int | fx.Node) -> int:
    if isinstance(pad, int):
        return pad
    raise c.refuse(n, "its pads depend on the batch size")
