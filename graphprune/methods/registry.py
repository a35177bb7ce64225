"""The table of methods that look at a model in PyTorch: those that train masks, and those that score units once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from graphprune.lookup import lookup

if TYPE_CHECKING:  # the table can be read without torch
    import numpy as np
    import torch

    from graphprune.relaxation import MonotoneBudget, Threshold
    from graphprune.search.scoring import Scoring


class Relax(Protocol):
    """Logits, a linear budget and a temperature -> soft masks."""

    def __call__(
        self, x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, warm: Threshold
    ) -> torch.Tensor:
        """``x`` ``[n]`` -> ``s`` ``[n]`` with ``sum(cost * s) = budget``."""


class RelaxCurve(Protocol):
    """Logits, a monotone budget and a temperature -> soft masks."""

    def __call__(self, x: torch.Tensor, budget: MonotoneBudget, tau: float, warm: Threshold) -> torch.Tensor:
        """``x`` ``[n]`` -> ``s`` ``[n]`` on which the budget holds."""


class RelaxRows(Protocol):
    """Scores of N:M groups -> soft masks."""

    def __call__(self, x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
        """``x`` ``[rows, M]`` -> ``s`` ``[rows, M]`` whose rows sum to ``k``."""


class Score(Protocol):
    """Units of a model -> their importance."""

    def __call__(self, scoring: Scoring) -> np.ndarray:
        """-> float ``[units]``; the largest stay."""


@dataclass(frozen=True)
class TrainedMethod:
    """A method that trains masks, or scores units once by gradients, and where that was published.

    relax, relax_curve, relax_rows: how logits (or the weights of N:M groups) become soft masks in a search.
    learns: masks have logits of their own; otherwise these are the units' magnitudes, read anew at every step.
    score: instead of a search, the importance of every unit; fine-tuning may follow. data: what it needs,
    ``none``, ``inputs`` (labels are used where there are any) or ``labels``.
    """

    name: str
    summary: str
    citation: str
    relax: Relax | None = None
    relax_curve: RelaxCurve | None = None
    relax_rows: RelaxRows | None = None
    learns: bool = True
    score: Score | None = None
    structures: tuple[str, ...] = ("channel", "block", "nm")
    data: str = "inputs"

    @property
    def searches(self) -> bool:
        """Whether masks are trained, over search epochs."""
        return self.score is None


_METHODS: dict[str, TrainedMethod] = {}


def register(method: TrainedMethod) -> TrainedMethod:
    """Add a method to the table. Raises ValueError when its name is taken."""
    if method.name in _METHODS:
        raise ValueError(f"there is a trained method {method.name!r} already")
    _METHODS[method.name] = method
    return method


def find_trained(name: str) -> TrainedMethod:
    """Raises OptionError, with the nearest name, for an unknown one."""
    return lookup(_METHODS, name, "trained method")


def all_trained() -> dict[str, TrainedMethod]:
    """Every trained method by name."""
    return dict(_METHODS)
