"""Where a falling function of one threshold meets its budget: Newton inside a bracket."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Close = Callable[[float, float], bool]

_MOST_STEPS = 200


@dataclass
class Threshold:
    """The threshold of the step before, where the next search for one starts; operators update it.

    In training it moves little from step to step, which saves most of the search. It is state: a run that
    is to continue bit for bit must restore it.
    """

    value: float | None = None


@dataclass(frozen=True)
class Root:
    """The last threshold tried, the excess over the budget there, and how fast it falls."""

    theta: float
    excess: float
    fall: float

    @property
    def improved(self) -> float:
        """One more step of Newton's."""
        return self.theta + self.excess / self.fall if self.fall > 0 else self.theta


def find_root(
    evaluate: Callable[[float], tuple[float, float]],
    low: float,
    high: float,
    *,
    start: float | None,
    close: Close,
    guess: Callable[[], float],
) -> Root:
    """The theta between ``low`` and ``high`` at which the excess over the budget is 0.

    ``evaluate(theta)`` gives the excess, which falls as theta grows, and its rate of fall; ``close`` says
    of the excess' size and that rate whether they will do. The last theta tried is the one returned, so
    that what ``evaluate`` leaves behind belongs to it. ``guess`` is asked once for a place near the root: at
    the outset without a ``start`` inside the bracket, otherwise where Newton's step is of no use (flat
    ground, far from the root).
    """
    guessed = start is None or not low < start < high
    theta = guess() if guessed or start is None else start
    if not low < theta < high:
        theta = (low + high) / 2
    move = high - low
    for _ in range(_MOST_STEPS):
        excess, fall = evaluate(theta)
        if close(abs(excess), fall):
            break
        if excess > 0:
            low = theta
        else:
            high = theta
        if high - low <= 4 * math.ulp(max(abs(low), abs(high))):
            break
        following = theta + excess / fall if fall > 0 else math.inf
        if not (low < following < high and abs(following - theta) <= move / 2):
            following = math.nan if guessed else guess()
            guessed = True
            if not low < following < high:
                following = (low + high) / 2
        move = abs(following - theta)
        theta = following
    return Root(theta, excess, fall)
