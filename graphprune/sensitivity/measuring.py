"""Each group pruned alone, and run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.calibration.candidates import candidate, run_outputs
from graphprune.calibration.collect import Progress, batch_size, silent
from graphprune.calibration.criteria import all_data_criteria
from graphprune.calibration.distances import output_distance
from graphprune.calibration.evaluating import accuracy_on
from graphprune.calibration.statistics import Statistics
from graphprune.choosing import PruneOptions, pools_of
from graphprune.criteria import all_criteria, channel_scores
from graphprune.errors import OptionError
from graphprune.running import Feed
from graphprune.selection import Pool, without
from graphprune.sensitivity.asked import Asked, Seen
from graphprune.sensitivity.result import ACCURACY, DISTANCE, GroupSensitivity, Sensitivity

Measure = Callable[[ir.Model], float | None]


def measure_sensitivity(
    model: ir.Model,
    analysis: Analysis,
    options: PruneOptions,
    asked: Asked,
    seen: Seen,
    progress: Progress = silent,
) -> Sensitivity:
    """Prune each group of ``model``, which was analysed, alone, and measure; nothing is refitted.

    Runs in as many threads as there are processors, each with one of onnxruntime's. Raises OptionError, DataError,
    BudgetError where nothing can be pruned, ModelError where onnxruntime cannot run the model.
    """
    scores = _scores(model, analysis, options, asked.order, seen.feeds, progress)
    pools = [p for p in pools_of(analysis, options, scores) if p.steps]
    measure = _by_accuracy(seen) if seen.labelled else _by_distance(model, analysis, seen)
    counts = [[_nearest(pool, ratio) for ratio in asked.ratios] for pool in pools]
    todo = [(number, n) for number, found in enumerate(counts) for n in sorted(set(found))]
    smaller = (
        candidate(model, analysis, without(analysis.everything, pools[i].steps[:n]), {}) for i, n in todo
    )
    values = dict(zip(todo, _in_parallel(measure, smaller, len(todo), progress), strict=True))
    groups = [
        GroupSensitivity(
            pool.groups[0].id,
            pool.groups[0].name,
            tuple(g.id for g in pool.groups[1:]),
            tuple(pool.steps[n - 1].share for n in counts[i]),
            tuple(values[i, n] for n in counts[i]),
        )
        for i, pool in enumerate(pools)
    ]
    metric = ACCURACY if seen.labelled else DISTANCE
    lost = -1.0 if seen.labelled else 1.0
    groups.sort(key=lambda g: _loss(g, lost), reverse=True)
    return Sensitivity(
        ratios=tuple(asked.ratios),
        metric=metric,
        unpruned=measure(model),
        method=asked.order,
        inputs="noise" if asked.data is None and asked.eval_data is None else "data",
        samples=sum(len(y) for _, y in seen.labelled) or sum(batch_size(f) for f in seen.feeds),
        groups=tuple(groups),
    )


def _loss(group: GroupSensitivity, sign: float) -> float:
    """Mean over the ratios; no finite number is the worst."""
    return float(np.mean([math.inf if v is None else sign * v for v in group.values]))


def _scores(
    model: ir.Model,
    analysis: Analysis,
    options: PruneOptions,
    method: str,
    feeds: Sequence[Feed],
    progress: Progress,
) -> np.ndarray:
    """Float ``[components]``, low goes first."""
    criterion = all_data_criteria().get(method)
    if criterion is not None:
        return criterion.channels(Statistics(model, analysis, options, feeds, progress))
    rng = np.random.default_rng(options.seed)
    return analysis.coupling.grids.spread(channel_scores(analysis.groups, all_criteria()[method], rng))


def _by_accuracy(seen: Seen) -> Measure:
    return lambda model: accuracy_on(model, seen.labelled, "the evaluation data", threads=1)


def _by_distance(model: ir.Model, analysis: Analysis, seen: Seen) -> Measure:
    """Raises OptionError for a model without outputs that have a distance."""
    outputs = [v.name for v in analysis.graph.outputs]
    inputs = [v.name for v in analysis.graph.inputs]
    wanted = run_outputs(model, outputs, inputs, seen.feeds)
    if not any(a.dtype.kind == "f" for a in wanted[0].values()):
        raise OptionError(
            "no output of this model is floating-point, so there is no distance between outputs: measure accuracy, "
            "with --eval-data"
        )

    def measure(other: ir.Model) -> float | None:
        found = output_distance(wanted, run_outputs(other, outputs, inputs, seen.feeds, threads=1))
        return found if math.isfinite(found) else None

    return measure


def _nearest(pool: Pool, ratio: float) -> int:
    """The number of steps, at least 1, whose share is nearest to ``ratio``."""
    return 1 + min(range(len(pool.steps)), key=lambda i: abs(pool.steps[i].share - ratio))


def _in_parallel(
    measure: Measure, models: Iterator[ir.Model], total: int, progress: Progress
) -> list[float | None]:
    """``measure`` of each, in order; a few models exist at a time."""
    workers = max(1, min(os.cpu_count() or 1, total))
    found: list[float | None] = []
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[float | None]] = [pool.submit(measure, m) for m in islice(models, workers)]
        try:
            while waiting:
                found.append(waiting.pop(0).result())
                progress("sensitivity", len(found), total)
                waiting += [pool.submit(measure, m) for m in islice(models, 1)]
        finally:
            for future in waiting:
                future.cancel()
    return found
