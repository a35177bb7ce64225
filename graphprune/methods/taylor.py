"""Taylor: the squared first-order change of the loss when a unit is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.methods.registry import register, scored

if TYPE_CHECKING:
    from graphprune.search.scoring import Scoring


def taylor(scoring: Scoring) -> np.ndarray:
    """Sum over batches of ``(sum of w dL/dw over the unit)^2`` (equation 8)."""
    return sum((g * g for g in scoring.mask_gradients()), np.zeros(scoring.size))


register(
    scored(
        "taylor",
        taylor,
        summary="squared first-order change of the loss",
        citation="Molchanov et al. 2019, arXiv:1906.10771",
    )
)
