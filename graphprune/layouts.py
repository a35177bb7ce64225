"""Where the zeros of a written file lie: the plan's patterns after physical removal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.errors import PlanError
from graphprune.patterns import block_sizes_of, kept_blocks, row_pattern
from graphprune.plan import Indices, Plan


@dataclass(frozen=True, eq=False)
class BlockLayout:
    """A weight of ``shape`` in blocks of ``block`` (sizes along every axis of the stored tensor).

    ``kept``: bool ``[grid]``, grid = ceil(shape / block); the other blocks are zero. Blocks at the far edges
    may be partial.
    """

    name: str
    shape: tuple[int, ...]
    block: tuple[int, ...]
    kept: np.ndarray


@dataclass(frozen=True, eq=False)
class RowLayout:
    """A weight of ``shape`` in which at most ``keep`` of every ``of`` weights along ``axis`` are not zero.

    Groups begin at every multiple of ``of``; the last may be shorter.
    """

    name: str
    shape: tuple[int, ...]
    axis: int
    keep: int
    of: int


Layout = BlockLayout | RowLayout


def written_layouts(plan: Plan, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Layout]:
    """Weight name -> its layout in the written file; ``shapes`` are those of the original tensors.

    Weights that were removed whole have none. Raises PlanError where channels were removed across blocks,
    which graphprune never does.
    """
    missing = next((n for n in (*plan.blocks, *plan.patterns) if n not in shapes), None)
    if missing is not None:
        raise PlanError(f"the plan zeroes {missing!r}, which the original does not have: wrong model")
    found: dict[str, Layout] = {}
    for name, entry in plan.blocks.items():
        layout = _block_layout(name, shapes[name], entry, plan.removed.get(name, {}))
        if layout.kept.size:
            found[name] = layout
    for name, entry in plan.patterns.items():
        keep, of, axis = row_pattern(name, len(shapes[name]), entry)
        found[name] = RowLayout(name, shapes[name], axis, keep, of)
    return found


def _block_layout(
    name: str, shape: tuple[int, ...], entry: Mapping[str, Any], removed: Mapping[str, Indices]
) -> BlockLayout:
    """The blocks of a plan's entry without those along every axis that were removed."""
    block, kept = block_sizes_of(name, shape, entry), kept_blocks(name, shape, entry)
    for text, indices in removed.items():
        axis = int(text)
        gone = _positions(name, indices)
        lost = np.bincount(gone // block[axis], minlength=kept.shape[axis])
        starts = np.arange(kept.shape[axis]) * block[axis]
        whole = lost == np.minimum(shape[axis] - starts, block[axis])
        if (~whole & (lost > 0)).any():
            raise PlanError(f"the plan removes a part of the blocks of {name!r}: it was changed by hand")
        kept = np.compress(~whole, kept, axis=axis)
        shape = (*shape[:axis], shape[axis] - gone.size, *shape[axis + 1 :])
    return BlockLayout(name, shape, block, kept)


def _positions(name: str, indices: Indices) -> np.ndarray:
    """Removed positions, which must be the same in every conv group."""
    array = np.asarray(indices, np.int64)
    if array.ndim == 2:
        if (array != array[:1]).any():
            raise PlanError(f"the plan removes other channels of {name!r} in every group: it has no blocks")
        array = array[0]
    return array
