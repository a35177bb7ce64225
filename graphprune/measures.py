"""How far apart two runs are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphprune.running import Results

VACUOUS_BELOW = 1e-6
"""A value whose relative change between two inputs is smaller does not depend on the input."""


def relative_difference(found: np.ndarray, wanted: np.ndarray, floor: float = 0.0) -> float:
    """``max|found - wanted| / max(max|wanted|, floor)`` over finite entries.

    Infinite where shapes differ, where one is NaN or infinite and the other is not, and where integers or
    booleans differ at all. 8-bit integers are quantised numbers: their differences count as shares of 255.
    """
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return math.inf
    if found.size == 0:
        return 0.0
    if found.dtype in (np.uint8, np.int8):
        return float(np.abs(found.astype(np.int64) - wanted.astype(np.int64)).max() / 255)
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, wanted) else math.inf
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)):
        return math.inf
    if not np.array_equal(found[~finite], wanted[~finite], equal_nan=True):
        return math.inf
    if not finite.any():
        return 0.0
    a, b = found[finite].astype(np.float64), wanted[finite].astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), floor, np.finfo(np.float32).tiny))


def differences(
    found: Results, wanted: Results, must: Iterable[str], bounded: Iterable[str] = ()
) -> dict[str, float]:
    """The relative difference of every value of one run.

    Names in ``must`` have to be there in the same shape; another value whose shape changed was itself
    pruned and is left out. Names in ``bounded`` are measured against 1.
    """
    needed, unit = set(must), set(bounded)
    diffs: dict[str, float] = {}
    for name, array in wanted.items():
        other = found.get(name)
        if other is None or other.shape != array.shape:
            if name in needed:
                diffs[name] = math.inf
            continue
        diffs[name] = relative_difference(other, array, 1.0 if name in unit else 0.0)
    return diffs


def worst_by_name(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The largest difference of every value over the runs."""
    merged: dict[str, float] = {}
    for diffs in runs:
        for name, diff in diffs.items():
            merged[name] = max(diff, merged.get(name, 0.0))
    return merged


def worst(diffs: Mapping[str, float]) -> float:
    """The largest difference; 0 where nothing was compared."""
    return max(diffs.values(), default=0.0)


def finite_or_none(record: Mapping[str, Any]) -> dict[str, Any]:
    """``record`` with None in the place of numbers that JSON cannot hold (infinite, NaN)."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


def is_vacuous(runs: Sequence[Results], compared: Iterable[str]) -> bool:
    """Whether none of the compared values changes from one input to another (or none is finite)."""
    for name in compared:
        arrays = [r[name] for r in runs if name in r]
        finite = [a for a in arrays if a.dtype.kind != "f" or np.isfinite(a).any()]
        for other in finite[1:]:
            if _change(finite[0], other) >= VACUOUS_BELOW:
                return False
    return True


def _change(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape == b.shape and a.dtype.kind == "f":
        both = np.isfinite(a) & np.isfinite(b)
        return relative_difference(a[both], b[both])
    return relative_difference(a, b)
