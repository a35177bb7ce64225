"""The table of methods that look at a model in PyTorch: those that train masks, and those that score units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

from graphprune.lookup import lookup
from graphprune.methods.masks import at_once, at_once_curve, at_once_rows
from graphprune.methods.stages import Schedule, annealed, geometric

if TYPE_CHECKING:  # the table can be read without torch
    import numpy as np
    import torch

    from graphprune.relaxation import MonotoneBudget, Threshold
    from graphprune.search.scoring import Scoring


class Relax(Protocol):
    """What the units compete with, a linear budget and a temperature -> masks."""

    def __call__(
        self, x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, memory: Threshold
    ) -> torch.Tensor:
        """``x`` ``[n]`` -> ``s`` ``[n]`` in 0..1, for a kept cost of ``sum(cost * s) = budget``.

        ``memory`` holds one number from step to step.
        """


class RelaxCurve(Protocol):
    """What the units compete with, a monotone budget and a temperature -> masks."""

    def __call__(
        self, x: torch.Tensor, budget: MonotoneBudget, tau: float, memory: Threshold
    ) -> torch.Tensor:
        """``x`` ``[n]`` -> ``s`` ``[n]`` for which the budget holds."""


class RelaxRows(Protocol):
    """What the weights of N:M groups compete with -> masks."""

    def __call__(self, x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
        """``x`` ``[rows, M]`` (-inf: padding) -> ``s`` ``[rows, M]`` of which ``k`` of every row stay."""


class Score(Protocol):
    """Units of a model -> their importance."""

    def __call__(self, scoring: Scoring) -> np.ndarray:
        """-> float ``[units]``; the largest stay."""


class Weigh(Protocol):
    """Importance, and how dense every unit's layer is today -> importance across layers."""

    def __call__(self, x: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
        """``x`` ``[units]``, ``density`` ``[units]`` in 0..1 -> ``[units]``."""


Source = Literal["logits", "weights", "gradients", "scores"]


@dataclass(frozen=True)
class TrainedMethod:
    """A method over masks in a trainable module, glued from a source, a relaxation and a schedule.

    source: what the units compete with. ``logits``: parameters of their own, trained; ``weights``: the norms of
        their weights today; ``gradients``: a running mean of ``|w dL/dw|``; ``scores``: what ``score`` says when
        masks are chosen.
    source_of_rows: what the weights of N:M groups compete with, where that differs.
    relax, relax_curve, relax_rows: how these become masks, under linear budgets, budgets of the whole model
        (parameters, MACs), and in N:M groups.
    schedule: when masks are chosen anew, and how far the budget has come by then.
    start: logits at the start of the search; None takes them from the recipe's ``mask_init``. box: logits are
        clipped to it.
    weigh: makes importance comparable across layers. layered: every layer keeps the share that the first decision
        gave it. restarts: weights under masks of 0 restart from 0, without momentum, when they are let go.
        gradual_rows: N:M groups thin out with the budget (M-1 of M first); otherwise N of M from the start.
    defaults: settings of the recipe that are the method's own, where the user has none. data: what it needs,
        ``none``, ``inputs`` (labels are used where there are any) or ``labels``. allocation: unless the user says
        otherwise.
    """

    name: str
    summary: str
    citation: str
    source: Source = "logits"
    source_of_rows: Source | None = None
    relax: Relax | None = None
    relax_curve: RelaxCurve | None = None
    relax_rows: RelaxRows | None = None
    schedule: Schedule = annealed
    start: float | None = None
    box: tuple[float, float] | None = None
    weigh: Weigh | None = None
    layered: bool = False
    restarts: bool = False
    gradual_rows: bool = False
    score: Score | None = None
    structures: tuple[str, ...] = ("channel", "block", "nm")
    data: str = "inputs"
    allocation: str = "global"
    defaults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def learns(self) -> bool:
        """Whether masks have parameters of their own."""
        return self.source == "logits"

    @property
    def one_shot(self) -> bool:
        """Whether units are scored when masks are chosen, instead of trained."""
        return self.score is not None


_METHODS: dict[str, TrainedMethod] = {}


def register(method: TrainedMethod) -> TrainedMethod:
    """Add a method to the table. Raises ValueError when its name is taken."""
    if method.name in _METHODS:
        raise ValueError(f"there is a trained method {method.name!r} already")
    _METHODS[method.name] = method
    return method


def scored(
    name: str,
    score: Score,
    *,
    summary: str,
    citation: str,
    structures: tuple[str, ...] = ("channel", "block", "nm"),
    data: str = "inputs",
    allocation: str = "global",
) -> TrainedMethod:
    """A method that keeps the units that ``score`` says, in one round or in many."""
    return TrainedMethod(
        name=name,
        summary=summary,
        citation=citation,
        source="scores",
        relax=at_once,
        relax_curve=at_once_curve,
        relax_rows=at_once_rows,
        schedule=geometric,
        gradual_rows=True,
        score=score,
        structures=structures,
        data=data,
        allocation=allocation,
        defaults={"snap": 0.0},
    )


def find_trained(name: str) -> TrainedMethod:
    """Raises OptionError, with the nearest name, for an unknown one."""
    return lookup(_METHODS, name, "trained method")


def all_trained() -> dict[str, TrainedMethod]:
    """Every trained method by name."""
    return dict(_METHODS)
