"""N:M patterns: in every M consecutive weights along an axis N stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.contractions import ContractionWeight
from graphprune.errors import BudgetError, OptionError
from graphprune.notation import AXES
from graphprune.slabs import largest


@dataclass(frozen=True)
class RowWeight:
    """A weight whose groups of ``of`` lie along ``axis`` of the stored tensor; ``keep`` of each stay."""

    weight: ContractionWeight
    axis: int
    keep: int
    of: int

    @property
    def name(self) -> str:
        """Of the stored tensor."""
        return self.weight.value.name

    def rows(self, array: np.ndarray) -> np.ndarray:
        """``[rows, of]``: the groups; what is missing at the end of the axis is -inf."""
        moved = np.moveaxis(array, self.axis, -1)
        short = -moved.shape[-1] % self.of
        padded = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(0, short)], constant_values=-np.inf)
        return padded.reshape(-1, self.of)

    def _back(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """``rows`` in the shape that they were cut from."""
        moved = [*shape[: self.axis], *shape[self.axis + 1 :]]
        whole = shape[self.axis] + (-shape[self.axis] % self.of)
        return np.moveaxis(rows.reshape(*moved, whole)[..., : shape[self.axis]], -1, self.axis)

    def choose(self, importance: np.ndarray) -> np.ndarray:
        """The ``keep`` most important of every group, the earlier of equals: bool of the shape given.

        ``importance``: of the weight, or of a part of its axis 0 that holds whole groups.
        """
        return self._back(largest(self.rows(importance), self.keep), importance.shape)

    def plan_entry(self) -> dict[str, Any]:
        """What the plan says of this weight."""
        return {"keep": self.keep, "of": self.of, "axis": self.axis}


def plan_fields(rows: Sequence[RowWeight]) -> dict[str, Any]:
    """What the plan says of all of them."""
    pattern = f"{rows[0].keep}:{rows[0].of}"
    return {"structure": "nm", "pattern": pattern, "patterns": {r.name: r.plan_entry() for r in rows}}


def row_weights(
    weights: Sequence[ContractionWeight], keep: int, of: int, along: str = "input"
) -> list[RowWeight]:
    """Weights with at least ``of`` positions along the axis; the others stay dense.

    So do those in which a group would reach into the next conv group. Raises BudgetError where no weight is
    left, OptionError for an unknown axis.
    """
    if along not in AXES:
        raise OptionError(f"--nm-axis {along!r}: use one of {', '.join(AXES)}")
    found = []
    for w in weights:
        axis = w.in_axis if along == "input" else w.out_axis
        stacked = w.conv_groups if axis == w.group_axis else 1
        positions = w.shape[axis] // stacked
        if positions >= of and (stacked == 1 or positions % of == 0):
            found.append(RowWeight(w, axis, keep, of))
    if not found:
        raise BudgetError(f"no weight has {of} {along}s: N:M pruning needs wider layers")
    return found
