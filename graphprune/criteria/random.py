"""Random scores: the baseline every criterion must beat."""

from __future__ import annotations

import numpy as np

from graphprune.criteria.registry import UnitRows, criterion
from graphprune.groups import Groups


def _channels(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """One draw for each coupled channel, however many tensors it is in."""
    return rng.random(groups.coupling.count)


@criterion("random", channels=_channels)
def random(units: UnitRows) -> np.ndarray:
    """Uniform random scores, reproducible by --seed."""
    return units.rng.random(len(units.weights))
