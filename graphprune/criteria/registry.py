"""The table of criteria."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphprune.errors import OptionError
from graphprune.groups import Groups

Score = Callable[[Groups, np.random.Generator], np.ndarray]
WeightScore = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Criterion:
    """A named score: ``function(groups, rng)`` -> float ``[components]``, low goes first.

    ``weights(array, rng)``: importance of every weight of a tensor, same shape; a block counts the mean over its
    weights. None: the criterion is for channels only.
    """

    name: str
    function: Score
    summary: str
    weights: WeightScore | None = None


_CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, *, weights: WeightScore | None = None) -> Callable[[Score], Score]:
    """Register a criterion. Raises ValueError when the name is taken."""

    def register(function: Score) -> Score:
        if name in _CRITERIA:
            raise ValueError(f"there is a criterion {name!r} already")
        summary = (inspect.getdoc(function) or "").split("\n")[0]
        _CRITERIA[name] = Criterion(name, function, summary, weights)
        return function

    return register


def find_criterion(name: str) -> Criterion:
    """Raises OptionError, with the nearest name, for an unknown one."""
    if name in _CRITERIA:
        return _CRITERIA[name]
    near = difflib.get_close_matches(name, _CRITERIA, 1)
    hint = f"did you mean {near[0]!r}?" if near else "known are " + ", ".join(sorted(_CRITERIA))
    raise OptionError(f"unknown method {name!r}: {hint}")


def all_criteria() -> dict[str, Criterion]:
    """Every criterion by name."""
    return dict(_CRITERIA)
