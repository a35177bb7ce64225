"""Both models on the same inputs, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from graphprune.analysis import Analysis, analyze_model
from graphprune.calibrated import sample_shapes
from graphprune.calibration.collect import Progress, batch_size
from graphprune.calibration.effort import samples_for_runs
from graphprune.calibration.evaluating import Labelled, accuracy_on, labelled, labelled_batches
from graphprune.calibration.inputs import BATCH_SIZE, Data, Reading, calibration_feeds, random_feeds
from graphprune.comparing.matching import Pair, match_inputs, match_outputs
from graphprune.comparing.outputs import Difference
from graphprune.data.inputs import input_specs
from graphprune.errors import ModelError, OptionError
from graphprune.latency.inputs import timing_feed
from graphprune.models import Model, sizes_by_name
from graphprune.running import Feed, Results, Session, first_line

Two = tuple[Model, Model]
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Pairs are (first, second). inputs: ``data`` or ``noise``; samples: how many; feeds: to time the models on."""

    inputs: str
    samples: int
    differences: list[Difference]
    params: tuple[int, int]
    macs: tuple[int, int]
    accuracy: tuple[float, float] | None
    labelled: int
    feeds: tuple[Feed, Feed]
    notes: tuple[str, ...]


def measure(
    first: Model,
    second: Model,
    *,
    data: Data | None,
    eval_data: str | Reading | None,
    samples: int | None,
    input_shapes: Mapping[str, Sequence[int]] | None,
    seed: int,
    progress: Progress,
) -> Measured:
    """See ``compare``."""
    if samples is not None and samples < 1:
        raise OptionError(f"--samples {samples}: give a number from 1")
    both, names = (first, second), (first.name, second.name)
    inputs = match_inputs(first.ir, second.ir, names)
    outputs = match_outputs(first.ir, second.ir, names)
    given = sizes_by_name(input_shapes)
    side = _stricter(both)
    analysis = _analysed(both[side], _for(given, inputs, side))
    count = samples or samples_for_runs(analysis.cost.total_macs // analysis.batch, 2)
    reading = Reading(eval_data) if isinstance(eval_data, str) else eval_data
    feeds = _feeds(both[side], analysis, data, reading, count, seed)
    noise = data is None and reading is None
    shapes = {v.name: v.shape for v in analysis.graph.inputs if v.shape is not None}
    if not noise:
        shapes = sample_shapes(both[side].ir, feeds, _for(given, inputs, side))
    everywhere = [_renamed(shapes, inputs, side, other) for other in (0, 1)]
    analyses = [_analysed(m, sizes) for m, sizes in zip(both, everywhere, strict=True)]
    try:
        differences = _differences(both, inputs, outputs, feeds, side, progress)
    except ModelError:  # an axis 0 that is open need not be a batch
        if not noise:
            raise
        feeds = [timing_feed(both[side].ir, analysis.graph, {})]
        differences = _differences(both, inputs, outputs, feeds, side, progress)
    accuracy, seen = None, 0
    if reading is not None:
        accuracy, seen = _accuracies(both, inputs, side, reading, progress)
    return Measured(
        "noise" if noise else "data",
        sum(batch_size(f) for f in feeds),
        differences,
        (analyses[0].cost.total_params, analyses[1].cost.total_params),
        (analyses[0].cost.total_macs, analyses[1].cost.total_macs),
        accuracy,
        seen,
        (_timing(first, analyses[0]), _timing(second, analyses[1])),
        tuple((analysis if noise else analyses[side]).notes),
    )


def _stricter(both: Two) -> int:
    """0 or 1: the model that leaves fewer sizes open, whose inputs both can take."""
    free = [sum(d is None for s in input_specs(m.ir) for d in s.shape) for m in both]
    return int(free[1] < free[0])


def _analysed(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Analysis:
    return analyze_model(model.ir, model.name, input_shapes=shapes, notes=model.notes)


def _timing(model: Model, analysis: Analysis) -> Feed:
    return timing_feed(model.ir, analysis.graph, {})


def _feeds(
    model: Model, analysis: Analysis, data: Data | None, reading: Reading | None, count: int, seed: int
) -> list[Feed]:
    if data is not None:
        return calibration_feeds(data, model.ir, count, seed=seed)
    if reading is not None:
        return [feed for feed, _ in labelled_batches(model.ir, reading, count, seed=seed)]
    return random_feeds(model.ir, analysis.graph, count, BATCH_SIZE, seed)


def _differences(
    both: Two,
    inputs: Sequence[Pair],
    outputs: Sequence[Pair],
    feeds: Sequence[Feed],
    side: int,
    progress: Progress,
) -> list[Difference]:
    """Both models live at once, and one batch of their outputs. Raises ModelError, OptionError."""
    found = [Difference(pair) for pair in outputs]
    names = (both[0].name, both[1].name)
    with _opened(both[0]) as one, _opened(both[1]) as other:
        for done, feed in enumerate(feeds):
            a = one.run(_renamed(feed, inputs, side, 0))
            b = other.run(_renamed(feed, inputs, side, 1))
            for difference in found:
                difference.add(a[difference.pair.first], b[difference.pair.second], names)
            progress("comparing", done + 1, len(feeds))
    return found


class _opened:
    """A model in onnxruntime, without its optimisations. Raises ModelError where it does not take the model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._specs = {s.name: s.dtype for s in input_specs(model.ir)}
        self._session = Session(model.ir)

    def __enter__(self) -> _opened:
        try:
            self._session.__enter__()
        except Exception as error:  # onnxruntime's errors have no common base
            raise self._refused("load", error) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(None, None, None)

    def run(self, feed: Feed) -> Results:
        """Outputs by name; inputs in the types of this model."""
        types = {n: "float32" if t == "bfloat16" else t for n, t in self._specs.items()}
        try:
            return self._session.run({n: np.asarray(a).astype(types[n], copy=False) for n, a in feed.items()})
        except Exception as error:  # onnxruntime's errors have no common base
            raise self._refused("run", error) from error

    def _refused(self, what: str, error: Exception) -> ModelError:
        return ModelError(f"onnxruntime cannot {what} {self._model.name}: {first_line(error)}")


def _accuracies(
    both: Two, inputs: Sequence[Pair], side: int, reading: Reading, progress: Progress
) -> tuple[tuple[float, float], int]:
    """On all labelled samples, and how many they are."""
    found, counted = [], 0
    for other, model in enumerate(both):
        progress("accuracy", other, 2)
        seen = _Counting(both[side], reading, inputs, side, other)
        found.append(accuracy_on(model.ir, seen, reading.data))
        counted = seen.samples
    progress("accuracy", 2, 2)
    return (found[0], found[1]), counted


class _Counting:
    """Labelled batches as one of the models takes them; ``samples`` says how many there were."""

    def __init__(self, model: Model, reading: Reading, inputs: Sequence[Pair], side: int, other: int) -> None:
        self._model, self._reading, self._ways = model, reading, (inputs, side, other)
        self.samples = 0

    def __iter__(self) -> Iterator[Labelled]:
        for feed, labels in labelled(self._model.ir, self._reading):
            self.samples += len(labels)
            yield _renamed(feed, *self._ways), labels


def _for(values: Mapping[str, T], pairs: Sequence[Pair], side: int) -> dict[str, T]:
    """What is said of an input under either of its names, by that of one model."""
    found = {}
    for pair in pairs:
        for name in (pair.first, pair.second):
            if name in values:
                found[(pair.first, pair.second)[side]] = values[name]
    return found


def _renamed(values: Mapping[str, T], pairs: Sequence[Pair], side: int, other: int) -> dict[str, T]:
    """By the names of one model -> by those of the other."""
    names = {(p.first, p.second)[side]: (p.first, p.second)[other] for p in pairs}
    return {names[name]: value for name, value in values.items() if name in names}
