"""``prune`` with inputs and without training: statistics -> scores -> decision -> compensation -> proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphprune.calibration.channels import compensated, decide_channels
from graphprune.calibration.collect import Progress, silent
from graphprune.calibration.criteria import all_data_criteria, find_data_criterion
from graphprune.calibration.refit import check_kind
from graphprune.calibration.statistics import Statistics
from graphprune.calibration.weights import compensated_weights, importance
from graphprune.choosing import PruneOptions
from graphprune.criteria import block_scores, channel_scores, find_criterion, weight_scores
from graphprune.errors import OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.models import Model
from graphprune.patterning import blocking_of, rows_of
from graphprune.pruning import Pruned, analyze, cut
from graphprune.rows import plan_fields
from graphprune.running import Feed
from graphprune.zeroing import zero_weights


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
    if options.structure == "channel":
        return _channels(source, options, batches, kind, progress)
    return _weights(source, options, batches, kind, progress)


def _channels(
    source: Model, options: PruneOptions, batches: Sequence[Feed], kind: str, progress: Progress
) -> Pruned:
    analysis = analyze(source.ir, source.name, options, source.notes)
    statistics = Statistics(source.ir, analysis, options, batches, progress)
    if options.method in all_data_criteria():
        scores = find_data_criterion(options.method).channels(statistics)
    else:
        rng = np.random.default_rng(options.seed)
        scores = channel_scores(analysis.groups, find_criterion(options.method), rng)
        scores = analysis.coupling.grids.spread(scores)
    decision = decide_channels(statistics, scores)
    weighted = compensated(statistics, decision.alive, kind)
    if weighted is not source.ir:
        analysis = analyze(weighted, source.name, options, source.notes)
    return cut(source.ir, weighted, analysis, decision, options, sha256=source.sha256())


def _weights(
    source: Model, options: PruneOptions, batches: Sequence[Feed], kind: str, progress: Progress
) -> Pruned:
    if options.allocation == "rate-distortion":
        options = replace(options, allocation="uniform")
    # the analysis of channels reads the same values; its groups are not used
    analysis = analyze(source.ir, source.name, replace(options, structure="channel"), source.notes)
    statistics = Statistics(source.ir, analysis, options, batches, progress)
    data = all_data_criteria().get(options.method)
    if data is not None and data.weights is None:
        raise OptionError(
            f"--method {options.method} scores whole channels: with --structure {options.structure} use wanda or obs"
        )
    found = {} if data is None or data.weights is None else importance(statistics, data.weights)
    criterion = find_criterion("magnitude" if data is not None else options.method)
    rng = np.random.default_rng(options.seed)
    graph = build_graph(source.ir, options.input_shapes)
    if options.structure == "block":
        blocking = blocking_of(graph, options)
        scores = block_scores(blocking, criterion, rng)
        for b in blocking.blocked:
            if b.weight.value.name in found:
                squares = np.square(found[b.weight.value.name], dtype=np.float64)
                scores[b.own] = np.sqrt(b.sums(squares) / b.sizes())
        keep = blocking.choose(scores)
        masks, fields = blocking.masks(keep), blocking.plan_fields(keep)
        achieved, dense = blocking.achieved(keep), blocking.dense
    else:
        rows = rows_of(graph, options)
        arrays = {r.name: np.asarray(r.weight.value.array(), np.float32) for r in rows}
        masks = {
            r.name: r.choose(found.get(r.name, weight_scores(arrays[r.name], criterion, rng))) for r in rows
        }
        fields, dense = plan_fields(rows), []
        achieved = 1 - sum(m.sum() for m in masks.values()) / sum(m.size for m in masks.values())
    weighted = compensated_weights(statistics, masks, kind)
    return zero_weights(source, weighted, masks, fields, options, float(achieved), dense=dense)
