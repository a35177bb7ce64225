"""What rows say together: means over seeds, and differences between methods seed by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from scipy.stats import t

from tests.benchmarks.paper.experiments import SEEDS
from tests.benchmarks.paper.keys import Key
from tests.benchmarks.paper.store import Rows

FINAL = "after fine-tuning"


@dataclass(frozen=True)
class Cell:
    """One method in one place: its rows by seed."""

    by_seed: dict[int, dict[str, Any]]

    @classmethod
    def of(cls, rows: Rows, keys: Iterator[Key]) -> Cell:
        """The rows of ``keys`` (of any seed) that are there, for every seed."""
        wanted = [replace(key, seed=seed) for key in keys for seed in SEEDS]
        return cls({key.seed: rows.by_key[key] for key in wanted if key in rows.by_key})

    def values(self, what: str = FINAL) -> list[float]:
        """In percent."""
        return [100 * row[what] for _, row in sorted(self.by_seed.items())]

    @property
    def mean(self) -> float:
        """Mean of the final figure over seeds, in percent; nan without rows."""
        return statistics.mean(self.values()) if self.by_seed else math.nan

    def text(self, digits: int = 2) -> str:
        """``75.31 ± 0.20 (3)``; one seed alone without a spread; ``cut`` where pruning cut a network through."""
        found = self.values()
        if not found:
            return ""
        spread = f" ± {statistics.stdev(found):.{digits}f} ({len(found)})" if len(found) > 1 else ""
        cut = " cut" if any(row.get("vacuous") for row in self.by_seed.values()) else ""
        return f"{self.mean:.{digits}f}{spread}{cut}"

    def hardened(self) -> str:
        """The mean before fine-tuning: what the masks alone leave."""
        found = self.values("after hardening")
        return f"{statistics.mean(found):.1f}" if found else ""

    @property
    def seconds(self) -> list[float]:
        """Wall time of the rows."""
        return [row["seconds"] for row in self.by_seed.values()]


def difference(one: Cell, other: Cell) -> tuple[float, float, int]:
    """Mean of ``one - other`` over the seeds that both have, its standard error (nan for one seed), and how many."""
    seeds = sorted(set(one.by_seed) & set(other.by_seed))
    found = [100 * (one.by_seed[s][FINAL] - other.by_seed[s][FINAL]) for s in seeds]
    if not found:
        return math.nan, math.nan, 0
    error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return statistics.mean(found), error, len(found)


def verdict(one: Cell, other: Cell) -> str:
    """win or loss where the 95 % interval of the paired differences (Student's t) leaves out 0, else tie."""
    mean, error, count = difference(one, other)
    if not count:
        return ""
    if count == 1:
        return f"{mean:+.2f} (one seed)"
    margin = float(t.ppf(0.975, count - 1)) * error
    word = "win" if mean > margin else "loss" if mean < -margin else "tie"
    return f"{word}, {mean:+.2f} ± {error:.2f}"
