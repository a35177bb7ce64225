"""LAMP: magnitude next to what is left once all smaller units of the tensor are gone."""

from __future__ import annotations

import numpy as np

from graphprune.allocation import lamp_scores
from graphprune.criteria.magnitude import squares
from graphprune.criteria.registry import UnitRows, criterion


@criterion(
    "lamp", citation="Lee et al. 2021, arXiv:2010.07611, equation 2", relative=False, allocation="global"
)
def lamp(units: UnitRows) -> np.ndarray:
    """Square of a unit's norm over the sum of squares of all units of its tensor that are no smaller.

    The largest unit of every tensor scores 1, so that a global threshold never empties one.
    """
    return lamp_scores(squares(units))
