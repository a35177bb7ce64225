"""One pass over inputs: second moments at the inputs of contractions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphprune.calibration.moments import AT_ONCE, Moments
from graphprune.calibration.segments import Segment
from graphprune.calibration.views import View
from graphprune.errors import DataError
from graphprune.graph import Graph
from graphprune.running import Feed

ROWS = (20_000, 60_000)
"""Fewest and most rows that moments are summed over, where there are so many: ten for every column between."""

MAX_COLUMNS = 6_144
"""A contraction that sums over more has no moments: its matrix alone would take 300 MB."""

LARGEST = 1e15
"""Squares of larger activations overflow in single precision."""

Progress = Callable[[str, int, int], None]
"""What is done, how much of it, of how much."""


def silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def rows_wanted(view: View) -> int:
    """Rows for the moments of a view."""
    return int(np.clip(10 * view.columns, *ROWS))


def places_of(view: View, samples: int, seed: int) -> np.ndarray:
    """Output positions to look at in every sample, so that all samples together give ``rows_wanted``."""
    shape = view.output.shape
    assert shape is not None
    per_sample = -(-rows_wanted(view) // max(samples, 1))
    return view.positions(shape, per_sample, np.random.default_rng([seed, view.node.index]))


def collect(
    model: ir.Model,
    graph: Graph,
    found: Sequence[View],
    batches: Sequence[Feed],
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Moments]:
    """Weight name -> moments of what its contraction reads, over ``batches`` of inputs.

    Contractions over more than MAX_COLUMNS are left out. Raises DataError for activations that are not finite, or
    beyond LARGEST. Memory: one matrix ``[columns, columns]`` per
    contraction, and one batch of activations.
    """
    wanted = [v for v in found if v.columns <= MAX_COLUMNS]
    moments = {v.name: Moments() for v in wanted}
    samples = sum(batch_size(b) for b in batches)
    places = {v.name: places_of(v, samples, seed) for v in wanted}
    names = list(dict.fromkeys(v.input.name for v in wanted))
    own = [n for n in names if any(n == i.name for i in graph.inputs)]
    with Segment(
        model, [v.name for v in graph.inputs], [n for n in names if n not in own], dtypes_of(graph)
    ) as part:
        waiting: dict[str, list[np.ndarray]] = {v.name: [] for v in wanted}
        for number, feed in enumerate(batches):
            values = {**part.run(feed), **{n: feed[n] for n in own}}
            last = number + 1 == len(batches)
            for view in wanted:
                rows = waiting[view.name]
                rows.append(rows_of(view, values[view.input.name], places[view.name]))
                if last or sum(map(len, rows)) >= max(AT_ONCE, view.columns):
                    moments[view.name].add(_checked(view, np.concatenate(rows)))
                    rows.clear()
            progress("statistics", number + 1, len(batches))
    return moments


def _checked(view: View, rows: np.ndarray) -> np.ndarray:
    if not np.abs(rows).max(initial=0) < LARGEST:
        raise DataError(
            f"on these inputs node {view.node.name!r} reads numbers that are NaN, infinite or beyond {LARGEST:g}: "
            "check the data and how it is normalised (--mean, --std)"
        )
    return rows


def rows_of(view: View, x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows of a batch of inputs, float32."""
    shape = view.output.shape
    assert shape is not None
    return view.rows(np.asarray(x, np.float32), shape, places)


def dtypes_of(graph: Graph) -> Mapping[str, str]:
    """numpy type of every value (bfloat16 is widened)."""
    return {n: "float32" if v.dtype == "bfloat16" else v.dtype for n, v in graph.values.items()}


def batch_size(feed: Feed) -> int:
    """Samples in a batch."""
    return max((len(a) for a in feed.values() if a.ndim), default=1)


def batched(arrays: Mapping[str, np.ndarray], size: int) -> list[Feed]:
    """Whole inputs ``[n, ...]`` as batches."""
    count = batch_size(dict(arrays))
    return [{k: a[i : i + size] for k, a in arrays.items()} for i in range(0, count, size)]


def concatenated(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Batches in one array."""
    return np.concatenate(list(parts))
