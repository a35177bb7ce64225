"""The latency of a candidate against that of the original, measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphprune.engine import Engine
from graphprune.graph import Graph
from graphprune.latency.inputs import timing_feed
from graphprune.latency.sessions import Timed
from graphprune.latency.timing import Spread, Turns, clock_for, ratio, take_turns, warm_up
from graphprune.writing import save_model

TURNS = Turns(seconds=1.5, least=15, most=400)


class Judge:
    """Times an original, and candidates in turns with it, on one random input of the analysed sizes.

    On one thread processor time is counted, which other programs do not add to; else time on the wall. The models
    are written to a temporary folder and loaded from there, as a user's file is.
    """

    def __init__(
        self,
        model: ir.Model,
        graph: Graph,
        input_shapes: Mapping[str, Sequence[int]],
        engine: Engine,
        turns: Turns | None = None,
    ) -> None:
        """Raises OptionError where onnxruntime lacks the provider, ModelError for inputs that cannot be drawn."""
        engine.check()
        self._model, self._engine, self._turns = model, engine, turns or TURNS
        self._feed = timing_feed(model, graph, input_shapes)
        self._clock = clock_for(engine.threads)

    def whole(self) -> float:
        """Median seconds of the original. Raises ModelError where onnxruntime does not run it."""
        return float(np.median(self._turns_of(self._model)[0]))

    def share(self, candidate: ir.Model) -> tuple[float, bool]:
        """Latency of ``candidate`` over the original's, and whether the machine was too busy. Raises ModelError."""
        first, second = self._turns_of(self._model, candidate)
        return ratio(second, first).value, Spread.of(second / first).busy

    def _turns_of(self, *models: ir.Model) -> np.ndarray:
        with _files(models) as paths:
            runs = [Timed(p, self._feed, self._engine, name="the model") for p in paths]
            for run in runs:
                warm_up(run, self._clock)
            return take_turns(runs, self._turns, self._clock)


@contextmanager
def _files(models: Sequence[ir.Model]) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        paths = [Path(folder) / f"{i}.onnx" for i in range(len(models))]
        for model, path in zip(models, paths, strict=True):
            save_model(model.clone(), path)
        yield [str(p) for p in paths]
