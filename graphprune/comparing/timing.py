"""Both models timed in onnxruntime, taking turns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune.calibration.collect import Progress
from graphprune.engine import Engine
from graphprune.latency import Ratio, Spread, Turns
from graphprune.latency.sessions import Timed
from graphprune.latency.timing import ratio, take_turns, warm_up
from graphprune.running import Feed

TURNS = Turns(seconds=1.0)


@dataclass(frozen=True)
class Latency:
    """Of two models. ratio: of the second to the first."""

    engine: Engine
    turns: int
    first: Spread
    second: Spread
    ratio: Ratio
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``compare --json``."""
        return {
            **self.engine.to_dict(),
            "turns": self.turns,
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "ratio": self.ratio.to_dict(),
        }


def time_both(
    paths: tuple[Path, Path], feeds: tuple[Feed, Feed], engine: Engine, progress: Progress
) -> Latency:
    """A second of turns after warming up. Raises OptionError for the engine, ModelError for the models."""
    engine.check()
    progress("timing", 0, 2)
    timed = [Timed(str(p), feed, engine, name=str(p)) for p, feed in zip(paths, feeds, strict=True)]
    for run in timed:
        warm_up(run)
    progress("timing", 1, 2)
    seconds = take_turns(timed, TURNS)
    progress("timing", 2, 2)
    first, second = (Spread.of(row) for row in seconds)
    apart = ratio(seconds[1], seconds[0])
    notes = [] if apart.differs else ["the latencies differ by no more than noise"]
    if first.busy or second.busy:
        notes.append("the latencies spread widely: stop what else runs, or use --threads 1")
    return Latency(engine, int(seconds.shape[1]), first, second, apart, tuple(notes))
