"""Zero patterns of weights as the plan describes them: kept blocks, and N of every M."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.errors import PlanError
from graphprune.slabs import largest, slabs


def grid_of(shape: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """Blocks along every axis: ceil(shape / block)."""
    return tuple(-(-n // b) for n, b in zip(shape, block, strict=True))


def block_sizes_of(name: str, shape: tuple[int, ...], entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Block sizes along every axis of a plan's ``blocks`` entry. Raises PlanError."""
    block = entry.get("shape")
    if not isinstance(block, list) or len(block) != len(shape) or any(not _is_size(b) for b in block):
        raise PlanError(f"the plan's blocks of {name!r} do not fit a tensor of shape {shape}: wrong model")
    return tuple(block)


def kept_blocks(name: str, shape: tuple[int, ...], entry: Mapping[str, Any]) -> np.ndarray:
    """``{"shape": block sizes along every axis, "kept": numbers of kept blocks}`` -> bool ``[grid]``.

    Blocks are numbered row-major over ``grid_of``; those at the far edges may be partial.
    Raises PlanError.
    """
    kept = entry.get("kept")
    grid = grid_of(shape, block_sizes_of(name, shape, entry))
    mask = np.zeros(math.prod(grid), bool)
    numbers = np.asarray(kept if isinstance(kept, list) else [-1], dtype=object)
    if any(not isinstance(k, int) or not 0 <= k < mask.size for k in numbers.tolist()):
        raise PlanError(f"the plan keeps blocks of {name!r} that it does not have: wrong model")
    mask[numbers.astype(np.int64)] = True
    return mask.reshape(grid)


def block_mask(name: str, shape: tuple[int, ...], entry: Mapping[str, Any]) -> np.ndarray:
    """As ``kept_blocks``, written out over the weights: bool of ``shape``. Raises PlanError."""
    found = kept_blocks(name, shape, entry)
    for axis, b in enumerate(block_sizes_of(name, shape, entry)):
        found = np.repeat(found, b, axis=axis)
    return found[tuple(slice(0, n) for n in shape)]


def row_pattern(name: str, rank: int, entry: Mapping[str, Any]) -> tuple[int, int, int]:
    """``keep``, ``of`` and ``axis`` of a plan's ``patterns`` entry. Raises PlanError."""
    found = [entry.get(k) for k in ("keep", "of", "axis")]
    keep, of, axis = (int(v) if isinstance(v, int) else -1 for v in found)
    if not (0 < keep < of and 0 <= axis < rank):
        raise PlanError(f"the plan's N:M pattern of {name!r} is malformed: it was not written by graphprune")
    return keep, of, axis


def nm_mask(name: str, weights: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """The N largest of every M consecutive ``weights`` along an axis: ``{"keep", "of", "axis"}`` -> bool.

    The earlier of equals counts. Raises PlanError.
    """
    keep, of, axis = row_pattern(name, weights.ndim, entry)
    mask = np.empty(weights.shape, bool)
    for part in slabs(weights.shape, of):
        mask[part] = _largest(weights[part], keep, of, axis)
    return mask


def _largest(weights: np.ndarray, keep: int, of: int, axis: int) -> np.ndarray:
    moved = np.moveaxis(np.abs(weights.astype(np.float64)), axis, -1)
    inputs = moved.shape[-1]
    padded = np.full((*moved.shape[:-1], -(-inputs // of) * of), -1.0)
    padded[..., :inputs] = moved
    mask = largest(padded.reshape(-1, of), keep)
    return np.moveaxis(mask.reshape(padded.shape)[..., :inputs], -1, axis)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
