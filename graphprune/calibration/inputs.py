"""Inputs to calibrate on: some samples of a user's data, or random ones, as onnxruntime takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphprune.data.inputs import input_specs as inputs_of
from graphprune.data.opening import open_data
from graphprune.data.samples import InputSpec, Source
from graphprune.errors import DataError
from graphprune.feeds import draw, input_specs
from graphprune.graph import Graph
from graphprune.open_sizes import batch_axes
from graphprune.running import Feed

BATCH_SIZE = 64

SAMPLES = 256
"""How many samples are looked at unless the caller says otherwise."""


@dataclass(frozen=True)
class Reading:
    """Data and how it is read: see ``data.opening.open_data``."""

    data: str
    batch_size: int | None = None
    resize: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def open(self, model: ir.Model, which: str = "train") -> Source:
        """Raises DataError, OptionError."""
        return open_data(
            self.data, inputs_of(model), resize=self.resize, mean=self.mean, std=self.std, which=which
        )


Data = str | Path | Reading | Sequence[Mapping[str, np.ndarray]]
"""What ``open_data`` reads, or feeds: input name -> one batch of it."""


def calibration_feeds(data: Data, model: ir.Model, samples: int, *, seed: int = 0) -> list[Feed]:
    """At most ``samples`` samples of ``data`` for ``model``; feeds are taken as they are.

    Raises DataError, OptionError.
    """
    inputs = inputs_of(model)
    if isinstance(data, str | Path):
        data = Reading(str(data))
    if isinstance(data, Reading):
        found = feeds_of(data.open(model), inputs, samples, data.batch_size or BATCH_SIZE, seed)
        return _without_nan(found, data.data)
    feeds = [{name: np.asarray(array) for name, array in feed.items()} for feed in data]
    missing = [s.name for feed in feeds for s in inputs if s.name not in feed]
    if missing or not feeds:
        what = f"a feed has no array for input {missing[0]!r}" if missing else "there are no feeds"
        raise DataError(f"{what}: give dicts of input name -> batch")
    return _without_nan(feeds, "a feed")


def _without_nan(feeds: list[Feed], where: str) -> list[Feed]:
    """``feeds``; infinite numbers may be masks."""
    for feed in feeds:
        for name, array in feed.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise DataError(f"{where} holds NaN for input {name!r}: leave these samples out")
    return feeds


def feeds_of(
    source: Source, inputs: Sequence[InputSpec], samples: int, batch_size: int, seed: int
) -> list[Feed]:
    """The first ``samples`` samples of ``source``, in the order that ``seed`` decides, as batches.

    ``inputs``: those of the model, in its order. Where it fixes the batch (axis 0), batches have that size and
    what does not fill one is left out. Raises DataError where nothing is left.
    """
    fixed = [s.shape[0] for s in inputs if s.shape and s.shape[0] is not None]
    size = fixed[0] if fixed else min(batch_size, samples)
    feeds: list[Feed] = []
    left = samples
    for batch in source.batches(size, seed=seed, drop_last=False):
        arrays = [_plain(a[:left]) for a in batch.inputs]
        count = len(arrays[0]) if arrays else 0
        if count == 0 or (fixed and count < size):
            break
        feeds.append({s.name: a for s, a in zip(inputs, arrays, strict=True)})
        left -= count
        if left <= 0:
            break
    if not feeds:
        need = f", and the model takes batches of {size}" if fixed else ""
        raise DataError(f"{source.name} holds too few samples to calibrate on{need}: give more")
    return feeds


def random_feeds(model: ir.Model, graph: Graph, samples: int, batch_size: int, seed: int) -> list[Feed]:
    """``samples`` standard-normal samples (integers: uniform in their range) at the analysed sizes of ``graph``.

    Where the model fixes the batch, every feed has that size. Raises ModelError for inputs that cannot be drawn.
    """
    specs = input_specs(model, graph, {})[-1]
    batches = batch_axes(graph.open_axes)
    is_open = any(batches.values())
    feeds: list[Feed] = []
    done = 0
    while done < samples:
        count = min(batch_size, samples - done) if is_open else 1
        sized = [
            replace(
                s, shape=tuple(count if a in batches.get(s.name, ()) else d for a, d in enumerate(s.shape))
            )
            for s in specs
        ]
        feeds.append(draw(sized, "normal", [seed, len(feeds)]))
        done += count if is_open else max((s.shape[0] for s in specs if s.shape), default=1)
    return feeds


def _plain(array: np.ndarray) -> np.ndarray:
    """bfloat16 is computed in float32 here (see ``running``)."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
