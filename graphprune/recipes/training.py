"""What a method that trains is told besides the recipe: data, checkpoints, who looks on. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from graphprune.recipes.recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """What a step leaves to be shown. ``undecided`` and ``kept`` are shares; kept is of the budget's cost."""

    step: int
    total: int
    phase: str
    epoch: float
    loss: float
    temperature: float
    undecided: float
    kept: float


class Watcher(Protocol):
    """Somebody who looks on; called on the first rank only."""

    def step(self, progress: Progress) -> None:
        """A step is done."""

    def metric(self, when: str, name: str, value: float) -> None:
        """A metric was measured."""

    def note(self, sentence: str) -> None:
        """Something the user should know."""


@dataclass(frozen=True)
class TrainingOptions:
    """Data, and everything else that a method needs to train; the command line has the same words.

    data / eval_data: an .npz, a folder of images or of shards, or ``python:package.module:factory``.
    eval: a metric (accuracy, miou, ``python:...``). resize, mean, std: how images become inputs.
    checkpoint: where the run is kept, so that ``resume`` can go on from it.
    """

    data: str
    recipe: Recipe = field(default_factory=Recipe)
    eval_data: str | None = None
    eval: str | None = None
    resize: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    checkpoint: Path | None = None
    resume: bool = False
    watcher: Watcher | None = None
