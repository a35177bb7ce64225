"""Runs that take turns, and what their times say: medians, spread, and a ratio with its confidence interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Run = Callable[[], object]
Clock = Callable[[], float]

RESAMPLES = 1000
BUSY = 0.25
"""Half the runs further apart than this share of the median: the machine does something else as well."""


@dataclass(frozen=True)
class Turns:
    """When to stop: after ``runs`` of every model, or where that is None after ``seconds``, at least ``least`` and at
    most ``most`` runs."""

    runs: int | None = None
    seconds: float = 3.0
    least: int = 20
    most: int = 2000


def clock_for(threads: int) -> Clock:
    """The processor time of this thread where all of a model runs on it, which other programs do not add to;
    else the time on the wall."""
    return time.thread_time if threads == 1 else time.perf_counter


def warm_up(run: Run, clock: Clock = time.perf_counter, *, block: int = 3, most: int = 10) -> int:
    """Run until a block of runs is no longer faster than the one before. Returns the number of runs."""
    before = float("inf")
    for number in range(most):
        spent = min(_time(run, clock) for _ in range(block))
        if spent > 0.97 * before:
            return (number + 1) * block
        before = min(before, spent)
    return most * block


def take_turns(runs: Sequence[Run], turns: Turns, clock: Clock = time.perf_counter) -> np.ndarray:
    """Seconds of every run: float ``[runs, turns]``.

    The order turns round in every turn, so that none always follows the same one: a busy machine slows all of them
    alike.
    """
    start = time.monotonic()
    found: list[list[float]] = []
    while True:
        spent = [0.0] * len(runs)
        order = range(len(runs)) if len(found) % 2 == 0 else reversed(range(len(runs)))
        for i in order:
            spent[i] = _time(runs[i], clock)
        found.append(spent)
        if turns.runs is not None:
            if len(found) >= turns.runs:
                break
        elif len(found) >= turns.most or (
            len(found) >= turns.least and time.monotonic() - start >= turns.seconds
        ):
            break
    return np.array(found).T


def _time(run: Run, clock: Clock) -> float:
    start = clock()
    run()
    return clock() - start


@dataclass(frozen=True)
class Spread:
    """Of seconds: median, quartiles, and the tenth and ninetieth percentile."""

    median: float
    q25: float
    q75: float
    p10: float
    p90: float

    @classmethod
    def of(cls, seconds: np.ndarray) -> Spread:
        """``seconds``: float ``[runs]``."""
        median, *others = np.percentile(seconds, (50, 25, 75, 10, 90)).tolist()
        return cls(median, *others)

    @property
    def relative(self) -> float:
        """The distance between the quartiles, as a share of the median."""
        return (self.q75 - self.q25) / self.median if self.median else 0.0

    @property
    def busy(self) -> bool:
        """Whether the machine was too busy for this to be a measurement."""
        return self.relative > BUSY

    def to_dict(self) -> dict[str, float]:
        """In milliseconds."""
        return {f"{k}_ms": round(1000 * v, 6) for k, v in vars(self).items()}


@dataclass(frozen=True)
class Ratio:
    """Of two latencies: the median over turns, and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the two are further apart than chance explains."""
        return not self.low <= 1 <= self.high

    def to_dict(self) -> dict[str, Any]:
        """With ``differs``."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "differs": self.differs,
        }


def ratio(second: np.ndarray, first: np.ndarray, seed: int = 0) -> Ratio:
    """``second / first`` turn by turn (float ``[turns]`` each); the interval is a bootstrap over turns.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).
    """
    each = second / np.maximum(first, 1e-12)
    rng = np.random.default_rng(seed)
    medians = [np.median(rng.choice(each, each.size)) for _ in range(RESAMPLES)]
    low, high = np.percentile(medians, (2.5, 97.5)).tolist()
    return Ratio(float(np.median(each)), low, high)
