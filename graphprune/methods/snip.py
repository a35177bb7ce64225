"""SNIP: how much the loss changes when a unit is switched off, by its first derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.methods.registry import register, scored

if TYPE_CHECKING:
    from graphprune.search.scoring import Scoring


def snip(scoring: Scoring) -> np.ndarray:
    """``|sum over batches of dL/ds|``, as a share of all (equations 5 and 6)."""
    total = np.abs(sum(scoring.mask_gradients(), np.zeros(scoring.size)))
    return total / max(float(total.sum()), np.finfo(np.float64).tiny)


register(
    scored(
        "snip",
        snip,
        summary="sensitivity of the loss to the mask",
        citation="Lee et al. 2019, arXiv:1810.02340",
    )
)
