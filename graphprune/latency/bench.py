"""``bench``: how long models take in onnxruntime, side by side, and where the time goes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.engine import Engine
from graphprune.errors import OptionError, PlanError
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph
from graphprune.latency.inputs import timing_feed, with_batch
from graphprune.latency.layers import LayerTime, attribute, by_operator, side_by_side
from graphprune.latency.peak_memory import peak_memory
from graphprune.latency.sessions import Timed, kernels
from graphprune.latency.table import Progress
from graphprune.latency.timing import Ratio, Spread, Turns, ratio, take_turns, warm_up
from graphprune.models import load, sizes_by_name
from graphprune.plan import Plan, plan_path
from graphprune.running import Feed

PROFILED_RUNS = 10


@dataclass(frozen=True)
class Benched:
    """One model: seconds, bytes of the file with its weights, and of memory (None where unknown)."""

    name: str
    seconds: Spread
    bytes: int
    memory: dict[str, int] | None
    ratio: Ratio | None
    """To the first model; None for that one."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "model": self.name,
            "latency": self.seconds.to_dict(),
            "bytes": self.bytes,
            "memory": self.memory,
            "ratio": None if self.ratio is None else self.ratio.to_dict(),
        }


@dataclass(frozen=True)
class Bench:
    """What ``bench`` measured. ``layers`` and ``operators`` are empty where no profile was asked for."""

    models: tuple[Benched, ...]
    layers: tuple[LayerTime, ...]
    operators: tuple[LayerTime, ...]
    inputs: dict[str, list[int]]
    turns: int
    engine: Engine
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``bench --json``; README, "Latency"."""
        return {
            **self.engine.to_dict(),
            "inputs": self.inputs,
            "turns": self.turns,
            "models": [m.to_dict() for m in self.models],
            "layers": [_layer(row) for row in self.layers],
            "operators": [_layer(row) for row in self.operators],
            "notes": list(self.notes),
        }


def _layer(row: LayerTime) -> dict[str, Any]:
    return {
        "name": row.name,
        "op": row.op,
        "ms": [None if s is None else round(1000 * s, 6) for s in row.seconds],
    }


@dataclass(frozen=True)
class _Subject:
    name: str
    path: str
    graph: Graph
    feed: Feed
    bytes: int
    renamed: Mapping[str, str]


def bench(
    *models: str | os.PathLike[str],
    engine: Engine | None = None,
    turns: Turns | None = None,
    batch: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    profile: bool = True,
    progress: Progress | None = None,
) -> Bench:
    """Time ``.onnx`` files in onnxruntime: warmed up, taking turns, each on random inputs of the same sizes.

    ``batch``: samples in a batch, where the models leave it open. ``input_shapes``: input name -> sizes. ``profile``:
    also where the time goes, operator by operator (those of a pruned model under the original's names, with the plan
    beside it), and peak memory, each in runs of their own.

    Raises OptionError for models that cannot be fed the same, ModelError for what onnxruntime does not run.
    """
    engine, turns = engine or Engine(), turns or Turns()
    engine.check()
    if not models:
        raise OptionError("name at least one .onnx file")
    subjects = [_subject(Path(m), batch, sizes_by_name(input_shapes)) for m in models]
    sizes = _same_sizes(subjects)
    tell = progress or (lambda what, done, total: None)
    seconds = _times(subjects, engine, turns, tell)
    spreads = [Spread.of(row) for row in seconds]
    ratios = [None, *(ratio(row, seconds[0]) for row in seconds[1:])]
    rows: list[LayerTime] = []
    memory: list[dict[str, int] | None] = [None] * len(subjects)
    if profile:
        found = []
        for i, s in enumerate(subjects):
            tell("profiling", i + 1, len(subjects))
            found.append(attribute(kernels(s.path, s.feed, engine, name=s.name, runs=PROFILED_RUNS), s.graph))
            told = {"threads": engine.threads, "provider": engine.provider}
            memory[i] = peak_memory(s.path, s.feed, told)
        rows = side_by_side(found, [s.renamed for s in subjects])
    return Bench(
        tuple(
            Benched(s.name, spread, s.bytes, m, r)
            for s, spread, m, r in zip(subjects, spreads, memory, ratios, strict=True)
        ),
        tuple(rows),
        tuple(by_operator(rows, len(subjects))),
        sizes,
        int(seconds.shape[1]),
        engine,
        tuple(_notes(subjects, spreads, ratios, engine)),
    )


def _subject(path: Path, batch: int | None, shapes: dict[str, tuple[int, ...]]) -> _Subject:
    model = load(path)
    graph = build_graph(model.ir, shapes)
    if batch is not None:
        shapes = with_batch(model.ir, graph, batch, shapes)
        graph = build_graph(model.ir, shapes)
    return _Subject(
        str(path),
        str(path),
        graph,
        timing_feed(model.ir, graph, shapes),
        model.stored_bytes or 0,
        _renamed(path),
    )


def _renamed(path: Path) -> Mapping[str, str]:
    """What the plan beside a pruned model says of names; nothing where there is none."""
    plan = plan_path(path)
    try:
        return Plan.load(plan).renamed if plan.is_file() else {}
    except PlanError:  # names are for the table alone
        return {}


def _same_sizes(subjects: Sequence[_Subject]) -> dict[str, list[int]]:
    """Of the inputs. Raises OptionError where two models do not take the same."""
    sizes = [{name: list(a.shape) for name, a in s.feed.items()} for s in subjects]
    for subject, found in zip(subjects[1:], sizes[1:], strict=True):
        if sorted(map(str, found.values())) != sorted(map(str, sizes[0].values())):
            raise OptionError(
                f"{subject.name} takes inputs {found} and {subjects[0].name} {sizes[0]}: latencies of different sizes "
                "do not compare; give --input-shape, or bench them apart"
            )
    return sizes[0]


def _times(subjects: Sequence[_Subject], engine: Engine, turns: Turns, tell: Progress) -> np.ndarray:
    timed = [Timed(s.path, s.feed, engine, name=s.name) for s in subjects]
    for i, run in enumerate(timed):
        tell("warming up", i + 1, len(timed))
        warm_up(run)
    done = 0

    def last() -> None:
        nonlocal done
        timed[-1]()
        done += 1
        tell("turn", done, max(turns.runs or turns.least, done))

    return take_turns([*timed[:-1], partial(last)], turns)


def _notes(
    subjects: Sequence[_Subject], spreads: Sequence[Spread], ratios: Sequence[Ratio | None], engine: Engine
) -> list[str]:
    names = [Path(s.name).name for s in subjects]
    advice = "stop what else runs" if engine.threads == 1 else "stop what else runs, or use --threads 1"
    found = [
        f"the runs of {name} spread by {100 * spread.relative:.0f} %: the machine is too busy to measure; {advice}"
        for name, spread in zip(names, spreads, strict=True)
        if spread.busy
    ]
    found += [
        f"{name} and {names[0]} differ by no more than noise"
        for name, r in zip(names, ratios, strict=True)
        if r is not None and not r.differs
    ]
    guessed = sorted({name for s in subjects for name in s.graph.guessed})
    if guessed:
        found.append(f"sizes of {', '.join(guessed)} were guessed: set --input-shape")
    return found
