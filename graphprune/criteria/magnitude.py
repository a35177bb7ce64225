"""Magnitude: how large a unit's weights are."""

from __future__ import annotations

import numpy as np

from graphprune.criteria.registry import UnitRows, criterion


@criterion(
    "magnitude", citation="Han et al. 2015, arXiv:1506.02626; per unit: Li et al. 2017, arXiv:1608.08710"
)
def magnitude(units: UnitRows) -> np.ndarray:
    """Root mean square of a unit's weights (the default)."""
    return np.asarray(np.sqrt(squares(units) / units.sizes))


@criterion("magnitude-l1", citation="Li et al. 2017, arXiv:1608.08710")
def magnitude_l1(units: UnitRows) -> np.ndarray:
    """Mean absolute value of a unit's weights."""
    return np.asarray(np.abs(units.weights).sum(axis=1, dtype=np.float64) / units.sizes)


def squares(units: UnitRows) -> np.ndarray:
    """Sum of squares of every unit: float64 ``[units]``."""
    return np.asarray(np.einsum("ij,ij->i", units.weights, units.weights, dtype=np.float64))
