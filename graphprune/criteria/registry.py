"""The table of criteria: scores from weights alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphprune.groups import Groups
from graphprune.lookup import lookup


@dataclass(frozen=True, eq=False)
class UnitRows:
    """The units of one stored tensor that compete with one another.

    weights: float ``[units, n]``, what each unit holds of the tensor: the slice of a channel, a block, or a single
        weight. sizes: int ``[units]``, how many of the ``n`` are real (partial blocks are filled up with
        zeros). rng: for criteria that draw.
    """

    weights: np.ndarray
    sizes: np.ndarray
    rng: np.random.Generator


UnitScore = Callable[[UnitRows], np.ndarray]
"""-> float ``[units]``, at least 0; low goes first."""

ChannelScore = Callable[[Groups, np.random.Generator], np.ndarray]
"""-> float ``[components]``, low goes first."""


@dataclass(frozen=True)
class Criterion:
    """A named score.

    units: for the units of one tensor; it serves channels, blocks and N:M. channels: for coupled channels
        directly, where a criterion looks at more than slices of weights; it wins for channels. relative: a
        channel's score in each of its tensors is divided by the mean there, so that layers compare. allocation: how
        the budget is spread unless the user says otherwise.
    """

    name: str
    summary: str
    citation: str
    units: UnitScore | None
    channels: ChannelScore | None
    relative: bool = True
    allocation: str = "uniform"

    @property
    def structures(self) -> tuple[str, ...]:
        """What it can prune."""
        return ("channel",) if self.units is None else ("channel", "block", "nm")


_CRITERIA: dict[str, Criterion] = {}


def criterion(
    name: str,
    *,
    citation: str = "",
    relative: bool = True,
    allocation: str = "uniform",
    channels: ChannelScore | None = None,
) -> Callable[[UnitScore], UnitScore]:
    """Register a score of units. Raises ValueError when the name is taken."""

    def register(function: UnitScore) -> UnitScore:
        _add(Criterion(name, _summary(function), citation, function, channels, relative, allocation))
        return function

    return register


def channel_criterion(name: str, *, citation: str = "") -> Callable[[ChannelScore], ChannelScore]:
    """Register a score that is defined for whole channels only. Raises ValueError when the name is taken."""

    def register(function: ChannelScore) -> ChannelScore:
        _add(Criterion(name, _summary(function), citation, None, function))
        return function

    return register


def find_criterion(name: str) -> Criterion:
    """Raises OptionError, with the nearest name, for an unknown one."""
    return lookup(_CRITERIA, name, "method")


def all_criteria() -> dict[str, Criterion]:
    """Every criterion by name."""
    return dict(_CRITERIA)


def _add(found: Criterion) -> None:
    if found.name in _CRITERIA:
        raise ValueError(f"there is a criterion {found.name!r} already")
    _CRITERIA[found.name] = found


def _summary(function: Callable[..., np.ndarray]) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]
