"""The table of trained methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from graphprune.lookup import lookup

if TYPE_CHECKING:  # the table can be read without torch
    import torch

    from graphprune.relaxation import MonotoneBudget, Threshold


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


@dataclass(frozen=True)
class TrainedMethod:
    """A method that trains masks: how logits become soft masks, and where that was published.

    data: what it needs, ``inputs`` (labels only for a loss that asks for them) or ``labels``.
    """

    name: str
    summary: str
    citation: str
    relax: Relax
    relax_curve: RelaxCurve
    relax_rows: RelaxRows
    structures: tuple[str, ...] = ("channel", "block", "nm")
    data: str = "inputs"


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
