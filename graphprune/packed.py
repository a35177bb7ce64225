"""Patterned weights without their zeros: block tables in BSR order, and N:M groups with positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.errors import ModelError
from graphprune.layouts import BlockLayout, Layout, RowLayout
from graphprune.notation import LARGEST_GROUP
from graphprune.slabs import largest, slabs


@dataclass(frozen=True, eq=False)
class PackedBlocks:
    """The kept blocks of a weight, in BSR (block sparse row) form.

    bitmap: bool ``[*grid]``, grid = ceil(shape / block); True where a block is stored.
    data: ``[kept, *block]`` in row-major order of the grid; entries beyond the far edges are zero.
    indptr: ``[grid[0] + 1]``; the blocks of block row i (grid axis 0) are ``indptr[i]:indptr[i + 1]``.
    indices: ``[kept]``; the block column, a row-major number over the other grid axes (0 where there are none).
    """

    name: str
    shape: tuple[int, ...]
    block: tuple[int, ...]
    bitmap: np.ndarray
    data: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        """Element type of the weight."""
        return self.data.dtype

    def dense(self) -> np.ndarray:
        """The weight, ``[*shape]``, with its zeros."""
        grid = self.bitmap.shape
        columns = math.prod(grid[1:])
        rows = np.repeat(np.arange(grid[0]), np.diff(self.indptr))
        blocks = np.zeros((math.prod(grid), *self.block), self.data.dtype)
        blocks[rows * columns + self.indices] = self.data
        whole = blocks.reshape(*grid, *self.block).transpose(side_by_side(len(grid)))
        whole = whole.reshape([g * b for g, b in zip(grid, self.block, strict=True)])
        return np.ascontiguousarray(whole[tuple(slice(0, n) for n in self.shape)])


@dataclass(frozen=True, eq=False)
class PackedRows:
    """The N stored weights of every M along an axis of a weight.

    values: ``[*other axes, groups, keep]``: the axis moved to the end and cut into groups of ``of``.
    positions: uint8, same shape: where in its group a value stands, ascending. A group with fewer non-zeros
        is filled up with zeros at its first free positions; those of a short last group may lie beyond the edge.
    """

    name: str
    shape: tuple[int, ...]
    axis: int
    keep: int
    of: int
    values: np.ndarray
    positions: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        """Element type of the weight."""
        return self.values.dtype

    def dense(self) -> np.ndarray:
        """The weight, ``[*shape]``, with its zeros."""
        groups = np.zeros((*self.values.shape[:-1], self.of), self.values.dtype)
        np.put_along_axis(groups, self.positions.astype(np.int64), self.values, axis=-1)
        lines = groups.reshape(*groups.shape[:-2], -1)[..., : self.shape[self.axis]]
        return np.ascontiguousarray(np.moveaxis(lines, -1, self.axis))


def side_by_side(rank: int) -> list[int]:
    """The permutation that turns ``[*grid, *block]`` into ``[grid 0, block 0, grid 1, block 1, ...]``."""
    return [axis for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for axis in pair]


Packed = PackedBlocks | PackedRows


def positive_zeros(array: np.ndarray) -> np.ndarray:
    """Without negative zeros (``array`` itself where it has none): a masked weight's bits are all 0 then."""
    if array.dtype.kind in "iub":
        return array
    negative = (array == 0) & np.signbit(array)
    return np.where(negative, np.zeros((), array.dtype), array) if negative.any() else array


def pack(array: np.ndarray, layout: Layout) -> Packed:
    """Take the zeros of ``layout`` out of a weight.

    Raises ModelError where the weight has another shape, or is not zero where the layout says so.
    """
    if array.shape != layout.shape:
        raise ModelError(
            f"weight {layout.name!r} has shape {array.shape} and its pattern {layout.shape}: "
            "the plan does not belong to this model"
        )
    return _pack_blocks(array, layout) if isinstance(layout, BlockLayout) else _pack_rows(array, layout)


def _pack_blocks(array: np.ndarray, layout: BlockLayout) -> PackedBlocks:
    grid, block = layout.kept.shape, layout.block
    data = np.empty((np.count_nonzero(layout.kept), *block), array.dtype)
    filled = 0
    for part in slabs((grid[0], block[0] * math.prod(array.shape[1:]))):
        kept = layout.kept[part]
        blocks = _blocks(array[part.start * block[0] : part.stop * block[0]], kept.shape, block)
        if (blocks[~kept] != 0).any():
            raise ModelError(
                f"weight {layout.name!r} is not zero outside its kept blocks: the plan does not belong to this model"
            )
        own = blocks[kept]
        data[filled : filled + len(own)] = own
        filled += len(own)
    rows = layout.kept.reshape(grid[0], -1)
    return PackedBlocks(
        layout.name,
        layout.shape,
        block,
        layout.kept,
        data,
        np.concatenate([[0], np.cumsum(rows.sum(axis=1))]).astype(np.int32),
        np.nonzero(rows)[1].astype(np.int32),
    )


def _blocks(array: np.ndarray, grid: Sequence[int], block: Sequence[int]) -> np.ndarray:
    """``[*grid, *block]``; entries beyond the far edges are zero."""
    padded = array
    whole = tuple(g * b for g, b in zip(grid, block, strict=True))
    if whole != array.shape:
        padded = np.zeros(whole, array.dtype)
        padded[tuple(slice(0, n) for n in array.shape)] = array
    cut = padded.reshape([n for pair in zip(grid, block, strict=True) for n in pair])
    rank = array.ndim
    return cut.transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)])


def _pack_rows(array: np.ndarray, layout: RowLayout) -> PackedRows:
    if layout.of > LARGEST_GROUP:
        raise ModelError(
            f"weight {layout.name!r}: groups of {layout.of} cannot be stored, at most {LARGEST_GROUP}"
        )
    moved = np.moveaxis(array, layout.axis, -1)
    shape = (*moved.shape[:-1], -(-moved.shape[-1] // layout.of), layout.keep)
    values, positions = np.empty(shape, array.dtype), np.empty(shape, np.uint8)
    for part in slabs(moved.shape) if moved.ndim > 1 else [slice(None)]:
        values[part], positions[part] = _stored_rows(moved[part], layout)
    return PackedRows(layout.name, layout.shape, layout.axis, layout.keep, layout.of, values, positions)


def _stored_rows(moved: np.ndarray, layout: RowLayout) -> tuple[np.ndarray, np.ndarray]:
    """Values and positions of ``moved``, whose groups lie along the last axis: ``[..., groups, keep]``."""
    groups = -(-moved.shape[-1] // layout.of)
    padded = np.zeros((*moved.shape[:-1], groups * layout.of), moved.dtype)
    padded[..., : moved.shape[-1]] = moved
    padded = padded.reshape(*moved.shape[:-1], groups, layout.of)
    empty = padded == 0
    if ((~empty).sum(axis=-1) > layout.keep).any():
        raise ModelError(
            f"weight {layout.name!r} has more than {layout.keep} non-zeros in a group of {layout.of}: "
            "the plan does not belong to this model"
        )
    stored = largest(
        (~empty).reshape(-1, layout.of).view(np.int8), layout.keep
    )  # non-zeros, then free positions
    positions = np.nonzero(stored)[1].reshape(*empty.shape[:-1], layout.keep)
    return np.take_along_axis(padded, positions, axis=-1), positions
