"""The table of criteria that look at activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphprune.calibration.moments import Moments
from graphprune.calibration.statistics import Statistics
from graphprune.calibration.views import View
from graphprune.lookup import lookup

ChannelScore = Callable[[Statistics], np.ndarray]
"""-> float ``[components]``, low goes first."""

WeightScore = Callable[[View, np.ndarray, Moments, float], np.ndarray]
"""A view, its weight ``[groups, columns, outputs]``, moments, ridge -> how much each weight matters, same shape."""


@dataclass(frozen=True)
class DataCriterion:
    """A named score, and what goes with it unless the user says otherwise.

    weights: for blocks and N:M; None where only channels are scored. allocation: how the budget is spread over
    layers. compensate: what the kept weights get.
    """

    name: str
    summary: str
    citation: str
    channels: ChannelScore
    weights: WeightScore | None = None
    allocation: str = "uniform"
    compensate: str = "none"

    @property
    def structures(self) -> tuple[str, ...]:
        """What it can prune."""
        return ("channel",) if self.weights is None else ("channel", "block", "nm")


_CRITERIA: dict[str, DataCriterion] = {}


def data_criterion(found: DataCriterion) -> None:
    """Register one. Raises ValueError when the name is taken."""
    if found.name in _CRITERIA:
        raise ValueError(f"there is a criterion {found.name!r} already")
    _CRITERIA[found.name] = found


def all_data_criteria() -> dict[str, DataCriterion]:
    """Every criterion by name."""
    return dict(_CRITERIA)


def find_data_criterion(name: str) -> DataCriterion:
    """Raises OptionError, with the nearest name, for an unknown one."""
    return lookup(_CRITERIA, name, "method")
