"""``prune`` with inputs and without training: statistics -> scores -> decision -> compensation -> proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.allocation import WITH_INPUTS
from graphprune.calibration.channels import compensated, decider
from graphprune.calibration.collect import Progress, batch_size, batched, silent
from graphprune.calibration.criteria import all_data_criteria, find_data_criterion
from graphprune.calibration.effort import samples_for
from graphprune.calibration.inputs import BATCH_SIZE, Data, calibration_feeds, random_feeds
from graphprune.calibration.refit import check_kind
from graphprune.calibration.statistics import Statistics
from graphprune.calibration.weights import block_importance, compensated_weights, importance
from graphprune.choosing import PruneOptions, options_from
from graphprune.criteria import all_criteria, channel_scores, find_criterion
from graphprune.errors import DataError, OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.latency.meeting import measured_rule, within_budget
from graphprune.lookup import hint
from graphprune.methods import all_trained
from graphprune.models import Model
from graphprune.pruning import Pruned, analyze, cut
from graphprune.results import PruneResult, result_of
from graphprune.running import Feed
from graphprune.weight_pruning import Scores, decide_weights, scores_of
from graphprune.zeroing import zero_weights

BATCH_BYTES = 1_000_000_000
"""Of all activations of a batch."""

NO_DATA = (
    "no data was given, so {method} looked at random noise: about 10 % of the channels is safe that way; 256 "
    "unlabelled inputs (--data) keep far more"
)


def prune_seen(
    model: Model,
    words: Mapping[str, Any],
    seed: int,
    *,
    data: Data | None,
    samples: int | None,
    compensate: str | None,
    progress: Progress | None,
) -> PruneResult:
    """``words``: as ``api.prune`` collects them. ``samples`` None: as many as the model's size is worth.

    Without ``data``, inputs are random. Raises what ``prune_calibrated`` does, and DataError.
    """
    method = words["method"]
    data_criteria = all_data_criteria()
    if method not in {**data_criteria, **all_criteria()}:
        if method in all_trained():
            raise OptionError(
                f"method {method} trains: it takes its data in training (command line: no --compensate)"
            )
        raise OptionError(
            f"unknown method {method!r}: {hint(method, [*data_criteria, *all_criteria(), *all_trained()])}"
        )
    if samples is not None and samples < 1:
        raise OptionError(f"--samples {samples}: give a number from 1")
    criterion = data_criteria.get(method) or find_criterion(method)
    options = options_from(words, seed, criterion.allocation)
    count = samples or samples_for(*_size(model, options))
    if data is None:
        batches = random_feeds(model.ir, build_graph(model.ir, options.input_shapes), count, BATCH_SIZE, seed)
        model.notes.append(NO_DATA.format(method=method))
    else:
        batches = calibration_feeds(data, model.ir, count, seed=seed)
        options = replace(options, input_shapes=sample_shapes(model.ir, batches, options.input_shapes))
    batches = small_batches(model, options, batches)
    pruned = prune_calibrated(model, options, batches, compensate=compensate, progress=progress or silent)
    return result_of(model, pruned)


def small_batches(model: Model, options: PruneOptions, batches: Sequence[Feed]) -> list[Feed]:
    """Batches whose activations take at most BATCH_BYTES together, where the model takes batches of any size."""
    if any(v.shape is None or not len(v.shape) or isinstance(v.shape[0], int) for v in model.ir.graph.inputs):
        return list(batches)
    graph = build_graph(model.ir, options.input_shapes)
    each = 4 * sum(v.size for v in graph.values.values() if not v.constant)
    size = max(1, BATCH_BYTES // max(each, 1))
    return [part for feed in batches for part in (batched(feed, size) if batch_size(feed) > size else [feed])]


def sample_shapes(
    model: ir.Model, batches: Sequence[Feed], given: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The data's sizes, for one sample, where model and user leave them open.

    Raises DataError where samples differ in size.
    """
    found = {name: (1, *array.shape[1:]) for name, array in batches[0].items() if array.ndim}
    for feed in batches:
        for name, array in feed.items():
            if array.ndim and array.shape[1:] != found[name][1:]:
                raise DataError(
                    f"samples of input {name!r} have sizes {found[name][1:]} and {array.shape[1:]}: bring them to one "
                    "size"
                )
    for value in model.graph.inputs:
        sizes, name = value.shape, value.name or ""
        if name in found and sizes is not None and len(sizes) == len(found[name]):
            found[name] = tuple(
                d if isinstance(d, int) else n for d, n in zip(sizes, found[name], strict=True)
            )
    return {**found, **given}


def _size(model: Model, options: PruneOptions) -> tuple[int, int]:
    """Multiplications, and bytes of the widest value, both for one sample."""
    analysis = analyze(model.ir, model.name, replace(options, structure="channel"))
    widest = max((v.size for v in analysis.graph.values.values() if not v.constant), default=1)
    return analysis.cost.total_macs // analysis.batch, 4 * widest // analysis.batch


def prune_calibrated(
    source: Model,
    options: PruneOptions,
    batches: Sequence[Feed],
    *,
    compensate: str | None = None,
    progress: Progress = silent,
) -> Pruned:
    """Prune ``source`` as ``options`` say, looking at ``batches`` of its inputs, and prove the result.

    ``options.method``: one that looks at activations, or a criterion of weights alone (for a compensation after it).
    compensate: none, bias or lstsq; None is the method's own.

    Raises BudgetError where the budget cannot be reached, OptionError for options that do not go together,
    FidelityError where the result does not equal the masked original.
    """
    if compensate is not None:
        check_kind(compensate)
    method = options.method
    kind = compensate or (all_data_criteria()[method].compensate if method in all_data_criteria() else "none")
    prune = _channels if options.structure == "channel" else _weights
    pruned = prune(source, options, batches, kind, progress)
    pruned.plan.calibration = {
        "samples": sum(batch_size(b) for b in batches),
        "compensate": kind,
        "allocation": options.allocation,
    }
    return pruned


def _channels(
    source: Model, options: PruneOptions, batches: Sequence[Feed], kind: str, progress: Progress
) -> Pruned:
    options = measured_rule(options)
    analysis = analyze(source.ir, source.name, options, source.notes)
    statistics = Statistics(source.ir, analysis, options, batches, progress)
    if options.method in all_data_criteria():
        scores = find_data_criterion(options.method).channels(statistics)
    else:
        rng = np.random.default_rng(options.seed)
        scores = channel_scores(analysis.groups, find_criterion(options.method), rng)
        scores = analysis.coupling.grids.spread(scores)
    decision = within_budget(source.ir, analysis, options, decider(statistics, scores), progress)
    weighted = compensated(statistics, decision.alive, kind)
    if weighted is not source.ir:
        analysis = analyze(weighted, source.name, options, source.notes)
    return cut(source.ir, weighted, analysis, decision, options, sha256=source.sha256())


def _weights(
    source: Model, options: PruneOptions, batches: Sequence[Feed], kind: str, progress: Progress
) -> Pruned:
    if options.allocation in WITH_INPUTS:  # measured for pools of channels
        options = replace(options, allocation="uniform")
    # the analysis of channels reads the same values; its groups are not used
    analysis = analyze(source.ir, source.name, replace(options, structure="channel"), source.notes)
    statistics = Statistics(source.ir, analysis, options, batches, progress)
    criterion = all_data_criteria().get(options.method)
    if criterion is None:
        scores = scores_of(options)
    elif criterion.weights is None:
        raise OptionError(
            f"--method {options.method} scores whole channels: with --structure {options.structure} use wanda or obs"
        )
    else:
        scores = _measured(importance(statistics, criterion.weights), options)
    decision = decide_weights(build_graph(source.ir, options.input_shapes), options, scores)
    weighted = compensated_weights(statistics, decision.masks, kind)
    return zero_weights(source, weighted, decision, options)


def _measured(found: Mapping[str, np.ndarray], options: PruneOptions) -> Scores:
    """Scores from what was measured; by magnitude where nothing was."""
    plain = scores_of(replace(options, method="magnitude"))
    return Scores(
        lambda blocking: block_importance(blocking, found),
        lambda name, array, part: found[name][part] if name in found else plain.weights(name, array, part),
    )
