"""Channels with inputs and without training: which go, and what the others become."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from graphprune.allocation import WITH_INPUTS
from graphprune.budget import Decision, decide
from graphprune.calibration.candidates import candidate
from graphprune.calibration.effort import effort_for
from graphprune.calibration.pairs import channel_pairs
from graphprune.calibration.refit import Fitting, refit
from graphprune.calibration.spreading import spread
from graphprune.calibration.statistics import Statistics
from graphprune.calibration.tables import measure_tables
from graphprune.calibration.turning import by_turning
from graphprune.choosing import PruneOptions, choose, fixed_shares, pools_of
from graphprune.edits import Kept
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph, Value
from graphprune.records import Slice
from graphprune.surgery import changed_slices, sliced
from graphprune.writeback import with_tensors

RATE_DISTORTION, COSINE = WITH_INPUTS


def decide_channels(statistics: Statistics, scores: np.ndarray) -> Decision:
    """Under the options' budget and allocation; see ``decider``. Raises BudgetError, OptionError."""
    return decider(statistics, scores)(statistics.options)


def decider(statistics: Statistics, scores: np.ndarray) -> Callable[[PruneOptions], Decision]:
    """Decides under the options' allocation, which may be RATE_DISTORTION; ``scores``: float ``[components]``.

    What is measured for it is measured once: the options it is called with differ from the statistics' in their
    budget alone. Raises OptionError; a call raises BudgetError.
    """
    analysis, options = statistics.analysis, statistics.options
    if options.allocation == COSINE:
        pools = by_turning(statistics, pools_of(analysis, options, scores))
        fixed = fixed_shares(pools, options)
        return lambda asked: decide(analysis.groups, pools, asked.budget, analysis.cost, ratios=fixed)
    if options.allocation != RATE_DISTORTION:
        return lambda asked: choose(analysis, asked, scores)
    orders = [pools_of(analysis, options, scores), pools_of(analysis, options, statistics.magnitudes)]
    effort = effort_for(statistics.macs, len(orders[0]))
    found = [
        measure_tables(
            statistics.model,
            analysis,
            pools,
            statistics.readers,
            statistics.first(effort.samples),
            levels=effort.levels,
            ridge=statistics.ridge,
            progress=statistics.progress,
        )
        for pools in orders[: effort.orders]
    ]
    # each pool goes in the order that moves the outputs less
    best = [
        min(range(len(found)), key=lambda order: float(found[order][i].distances.mean()))
        for i in range(len(orders[0]))
    ]
    pools = [orders[order][i] for i, order in enumerate(best)]
    tables = [found[order][i] for i, order in enumerate(best)]
    return lambda asked: spread(analysis, asked, pools, tables)


def compensated(
    statistics: Statistics, alive: np.ndarray, kind: str, trained: Mapping[str, np.ndarray] | None = None
) -> ir.Model:
    """The model with what its kept channels get (``kind``: see ``refit``), in the original's shapes.

    ``trained``: tensors that have other numbers by now; these are fitted then, still to what ``statistics.model``
    computes.
    """
    arrays = dict(trained or {})
    model = with_tensors(statistics.model, arrays) if arrays else statistics.model
    if kind == "none":
        return model
    analysis = statistics.analysis
    coupling = analysis.coupling
    kept = coupling.kept(alive)
    small = candidate(statistics.model, analysis, alive, arrays)
    shapes = {v.name: v.shape for v in analysis.graph.inputs if v.shape is not None}
    graph = build_graph(small, shapes)
    found = refit(
        small,
        graph,
        statistics.model,
        analysis.graph,
        channel_pairs(graph, analysis.graph, coupling, kept),
        statistics.batches,
        Fitting(kind, statistics.ridge, seed=statistics.options.seed),
        statistics.progress,
    )
    slices = {v.name: s for v, s in changed_slices(coupling, kept).items()}
    whole = build_graph(model, shapes) if arrays else analysis.graph
    return with_tensors(model, scattered(whole, slices, kept, found))


def scattered(
    graph: Graph, slices: Mapping[str, list[Slice]], kept: Kept, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Tensors of the smaller model in the places that they come from; removed entries keep those of ``graph``."""
    found = {}
    for name, new in arrays.items():
        value: Value = graph.values[name]
        whole = np.array(value.array(), np.float32)
        places = np.arange(whole.size).reshape(whole.shape)
        if name in slices:
            places = sliced(places, slices[name], kept)
        whole.reshape(-1)[places.reshape(-1)] = new.reshape(-1)
        found[name] = whole
    return found
