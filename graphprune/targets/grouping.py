"""Counting zeros in N:M groups and in blocks, on the written numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def crowded_groups(nonzero: np.ndarray, axis: int, keep: int, of: int) -> tuple[int, int]:
    """Groups of ``of`` consecutive entries along ``axis`` with more than ``keep`` non-zeros, and all groups.

    Groups begin at every multiple of ``of``; the last one is filled with zeros where it is short.
    """
    moved = np.moveaxis(nonzero, axis, -1)
    starts = np.arange(0, moved.shape[-1], of)
    counts = np.add.reduceat(moved.astype(np.int32), starts, axis=-1)
    return int((counts > keep).sum()), int(counts.size)


def zero_block_share(nonzero: np.ndarray, block: Sequence[int]) -> float:
    """Share of entries that lie in blocks without a non-zero; blocks may be partial at the far edges.

    ``nonzero``: bool ``[groups, outputs, inputs, kernel...]``, of which every group is cut by itself into
    blocks of ``block`` (outputs, inputs, kernel...; -1 is a whole axis, missing ones are 1).
    """
    filled, sizes = nonzero, np.ones((), np.int64)
    sizes = np.multiply.outer(sizes, np.ones(nonzero.shape[0], np.int64))
    for axis, step in enumerate(_steps(nonzero.shape[1:], block), start=1):
        starts = np.arange(0, nonzero.shape[axis], step)
        filled = np.logical_or.reduceat(filled, starts, axis=axis)
        sizes = np.multiply.outer(sizes, np.diff([*starts, nonzero.shape[axis]]))
    return float(sizes[~filled].sum()) / max(nonzero.size, 1)


def holds_block(shape: Sequence[int], block: Sequence[int]) -> bool:
    """Whether a weight of ``shape`` (outputs, inputs, kernel...) is as large as one block."""
    return all(step <= size for size, step in zip(shape, _steps(shape, block), strict=True))


def _steps(shape: Sequence[int], block: Sequence[int]) -> list[int]:
    sizes = [*block, *[1] * len(shape)][: len(shape)]
    return [size if step == -1 else step for size, step in zip(shape, sizes, strict=True)]
