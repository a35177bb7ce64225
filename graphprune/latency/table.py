"""The cost table: seconds of contractions at channel counts, measured once on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.engine import Engine
from graphprune.errors import ModelError
from graphprune.latency import cache
from graphprune.latency.contraction import Contraction, input_shape, timed_model
from graphprune.latency.sessions import kernels

Progress = Callable[[str, int, int], None]
Point = tuple[int, int]
"""Inputs and outputs."""
Want = tuple[Contraction, Sequence[Point]]

SESSION_BYTES = 200_000_000
"""Weights of the contractions that are timed in one session."""

MACS_PER_SECOND = 2e10
"""A guess, for the number of runs alone."""
SESSION_SECONDS = 0.4
RUNS = (5, 40)


@dataclass
class CostTable:
    """Seconds by ``Contraction.key``; what is missing is measured, and kept where the engine says so."""

    engine: Engine
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, engine: Engine) -> CostTable:
        """With what this machine's cache has."""
        return cls(engine, cache.read(engine.to_dict()) if engine.cache else {})

    def fill(self, wanted: Sequence[Want], progress: Progress | None = None) -> None:
        """Measure what is missing. Contractions that onnxruntime does not take stay missing."""
        missing = [
            (c, batch) for c, points in wanted for batch in _batches(c, self._missing(c, points)) if batch
        ]
        added: dict[str, float] = {}
        for number, (contraction, points) in enumerate(missing):
            if progress is not None:
                progress("measuring layers", number + 1, len(missing))
            for point, seconds in zip(points, time_points(contraction, points, self.engine), strict=True):
                added[contraction.key(*point)] = seconds
        self.seconds |= {k: v for k, v in added.items() if math.isfinite(v)}
        if added and self.engine.cache:
            cache.add(self.engine.to_dict(), {k: v for k, v in added.items() if math.isfinite(v)})

    def _missing(self, contraction: Contraction, points: Sequence[Point]) -> list[Point]:
        return [p for p in dict.fromkeys(points) if contraction.key(*p) not in self.seconds]

    def at(self, contraction: Contraction, point: Point) -> float:
        """Seconds; nan where it could not be measured."""
        return self.seconds.get(contraction.key(*point), math.nan)


def _batches(contraction: Contraction, points: Sequence[Point]) -> Iterator[list[Point]]:
    """Points whose weights fit into one session together."""
    found: list[Point] = []
    held = 0
    for point in points:
        size = math.prod(contraction.weight_shape(*point)) * np.dtype(contraction.dtype).itemsize
        if found and held + size > SESSION_BYTES:
            yield found
            found, held = [], 0
        found.append(point)
        held += size
    yield found


def time_points(contraction: Contraction, points: Sequence[Point], engine: Engine) -> list[float]:
    """Seconds of the operator at each point, as onnxruntime's profile counts them; nan where it does not run.

    The points take turns. The mean of the faster half of the runs: onnxruntime counts whole microseconds, and what
    disturbs a run only makes it longer.
    """
    rng = np.random.default_rng(0)
    feed = {
        f"x{n}": rng.standard_normal(input_shape(contraction, n)).astype(contraction.dtype)
        for n in {p[0] for p in points}
    }
    each = sum(contraction.work(*p) for p in points) / MACS_PER_SECOND
    runs = int(np.clip(SESSION_SECONDS / max(each, 1e-9), *RUNS))
    try:
        found = kernels(timed_model(contraction, points), feed, engine, name=contraction.op, runs=runs)
    except ModelError:
        return [math.nan] * len(points)
    seconds = {k.name.removesuffix("_nchwc"): faster_half(k.seconds) for k in found}
    return [seconds.get(f"t{i}", math.nan) for i in range(len(points))]


def faster_half(seconds: np.ndarray) -> float:
    """Mean of the faster half; at least a tenth of a microsecond, which stands for a count of 0."""
    ordered = np.sort(seconds)
    return max(float(ordered[: (ordered.size + 1) // 2].mean()), 1e-7)
