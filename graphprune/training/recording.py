"""What a training leaves to be plotted: a few hundred looks at it, kept over a resumption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphprune.history import COLUMNS
from graphprune.recipes.training import Progress

LOOKS = 200
"""How often in a whole training the masks are looked at."""


class Recording:
    """Rows of ``COLUMNS``; the loss of a row is the mean since the row before. ``state`` is plain data."""

    def __init__(self, total: int) -> None:
        self._every = max(1, total // LOOKS)
        self._total = total
        self.state: dict[str, Any] = {"rows": {name: [] for name in COLUMNS}, "sum": 0.0, "count": 0}

    def looks(self, step: int) -> bool:
        """Whether there is a row after this step (from 1)."""
        return step % self._every == 0 or step in (1, self._total)

    def add(self, progress: Progress, target: float) -> None:
        """A step is done. ``target``: the share of the cost that the budget leaves by now."""
        state = self.state
        state["sum"] += progress.loss
        state["count"] += 1
        if not self.looks(progress.step):
            return
        row = {
            "step": progress.step,
            "phase": progress.phase,
            "loss": state["sum"] / state["count"],
            "temperature": progress.temperature,
            "undecided": progress.undecided,
            "kept": progress.kept,
            "target": target,
        }
        for name, value in row.items():
            state["rows"][name].append(value)
        state["sum"], state["count"] = 0.0, 0

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on after what ``state`` holds."""
        self.state = dict(state)
