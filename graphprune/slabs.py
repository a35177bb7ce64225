"""Large arrays: parts of them, so that what takes copies takes none of the whole, and the largest of every row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

SLAB_ELEMENTS = 1 << 21
"""Numbers that are looked at together."""

NARROW = 8
"""Rows up to this width are compared pair by pair, which takes a fraction of the time of sorting."""


def slabs(shape: Sequence[int], of: int = 1) -> Iterator[slice]:
    """Parts of axis 0 that cover ``shape`` (of rank 1 and more): multiples of ``of`` long, about SLAB_ELEMENTS each."""
    step = of * max(1, SLAB_ELEMENTS // max(1, math.prod(shape[1:]) * of))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def largest(rows: np.ndarray, keep: int) -> np.ndarray:
    """The ``keep`` largest of every row of ``[rows, n]``, the earlier of equals; NaN comes last. Bool, same shape."""
    count = rows.shape[1]
    if count > NARROW or (rows.dtype.kind not in "biu" and np.isnan(rows).any()):
        best = np.argsort(-rows, axis=1, kind="stable")[:, :keep]
        mask = np.zeros(rows.shape, bool)
        np.put_along_axis(mask, best, True, axis=1)
        return mask
    columns = np.ascontiguousarray(rows.T)
    rank = np.zeros(columns.shape, np.int8)  # how many come before
    for later in range(count):
        for earlier in range(later):
            first = columns[earlier] >= columns[later]
            rank[later] += first
            rank[earlier] += ~first
    return np.ascontiguousarray((rank < keep).T)
