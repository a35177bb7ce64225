"""When a method chooses its masks, and how far its budget has come by then: functions of the step alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphprune.recipes.schedules import budget_share, progress

if TYPE_CHECKING:
    from graphprune.recipes.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """share: of the way from keeping everything (0) to the budget (1). number: masks are chosen when it changes
    and then held; None chooses them at every step."""

    share: float
    number: int | None = None


Schedule = Callable[[int, int, "Recipe", float], Stage]
"""(step from 0, steps of the search, recipe, share of the cost that the budget keeps) -> what holds at that step."""


def annealed(step: int, steps: int, recipe: Recipe, kept: float) -> Stage:
    """The cubic of gradual pruning over ``budget_anneal`` of the search (Zhu and Gupta 2017, equation 1)."""
    return Stage(budget_share(step, steps, recipe.own("budget_anneal")))


def linear(step: int, steps: int, recipe: Recipe, kept: float) -> Stage:
    """A straight line over ``budget_anneal`` of the search."""
    over = recipe.own("budget_anneal")
    p = progress(step, steps)
    return Stage(1.0 if p >= over else p / over)


def rising(step: int, steps: int, recipe: Recipe, kept: float) -> Stage:
    """Equal steps: dense first, then ``rounds`` times a little less, the last at the budget."""
    rounds = int(recipe.own("rounds"))
    number = _number(step, steps, rounds + 1)
    return Stage(number / rounds, number)


def alternating(step: int, steps: int, recipe: Recipe, kept: float) -> Stage:
    """``rounds`` times dense, then at the budget (AC/DC, algorithm 1)."""
    number = _number(step, steps, 2 * int(recipe.own("rounds")))
    return Stage(float(number % 2), number)


def geometric(step: int, steps: int, recipe: Recipe, kept: float) -> Stage:
    """``rounds`` prunings, each to the same share of the one before; the last is the hard decision itself."""
    rounds = int(recipe.own("rounds"))
    number = _number(step, steps, max(rounds - 1, 1))
    kept = min(max(kept, 1e-6), 1 - 1e-9)
    return Stage((1 - kept ** ((number + 1) / rounds)) / (1 - kept), number)


def _number(step: int, steps: int, parts: int) -> int:
    """Which of equal parts of the search ``step`` falls into."""
    return min(step * parts // max(steps, 1), parts - 1)
