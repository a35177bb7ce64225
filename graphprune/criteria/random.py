"""Random scores: the baseline every criterion must beat."""

from __future__ import annotations

import numpy as np

from graphprune.criteria.registry import criterion
from graphprune.groups import Groups


@criterion("random", weights=lambda w, rng: rng.random(w.shape))
def random(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """Uniform random scores, reproducible by --seed."""
    return rng.random(groups.coupling.count)
