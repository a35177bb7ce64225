"""``--method reconstruct``: which channels go, how many from where, and what the others become; no gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.budget import Decision, decide
from graphprune.calibration.collect import MAX_COLUMNS, Progress, batch_size, collect, silent
from graphprune.calibration.order import greedy_order
from graphprune.calibration.rate_distortion import allocate
from graphprune.calibration.readers import Readers
from graphprune.calibration.refit import Pair, feeds_relu, refit_in_order
from graphprune.calibration.tables import Table, measure_tables
from graphprune.calibration.views import View, views
from graphprune.choosing import PruneOptions, fixed_shares, movable, pools_of
from graphprune.criteria.scoring import mean_over_slices
from graphprune.frontends.onnx import build_graph
from graphprune.running import Feed
from graphprune.selection import Pool
from graphprune.surgery import apply, changed_slices, sliced
from graphprune.writeback import with_tensors

LEVELS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
TABLE_SAMPLES = 256


@dataclass(frozen=True)
class Effort:
    """ridge: None chooses by the number of samples. levels: shares at which distortions are measured."""

    ridge: float | None = None
    levels: tuple[float, ...] = LEVELS
    table_samples: int = TABLE_SAMPLES
    iterations: int = 3
    refit: bool = True
    tables: bool = True


def ridge_for(samples: int) -> float:
    """.05 up to 256 samples, .01 from 2,000, a power law between."""
    low, high = np.log([256, 2000])
    place = np.clip((np.log(max(samples, 1)) - low) / (high - low), 0, 1)
    return float(0.05 * (0.01 / 0.05) ** place)


def decide_and_refit(
    model: ir.Model,
    analysis: Analysis,
    options: PruneOptions,
    batches: Sequence[Feed],
    effort: Effort = Effort(),
    progress: Progress = silent,
) -> tuple[Decision, ir.Model]:
    """The decision, and ``model`` with the weights that the kept channels get."""
    samples = sum(batch_size(b) for b in batches)
    ridge = ridge_for(samples) if effort.ridge is None else effort.ridge
    found = views(analysis.graph)
    moments = collect(model, analysis.graph, found, batches, seed=options.seed, progress=progress)
    readers = Readers(analysis.coupling, found, moments, movable(analysis, options))
    pools, losses = ordered_pools(analysis, options, readers, ridge)
    few = first_samples(batches, effort.table_samples)
    if effort.tables:
        tables = measure_tables(
            model, analysis, pools, readers, few, levels=effort.levels, ridge=ridge, progress=progress
        )
    else:
        tables = losses
    decision = distribute(analysis, options, pools, tables)
    if not effort.refit:
        return decision, model
    arrays = refit_decision(
        model, analysis, decision.alive, options, batches, ridge, effort.iterations, progress
    )
    return decision, with_tensors(model, arrays)


def first_samples(batches: Sequence[Feed], count: int) -> list[Feed]:
    """The first batches, until there are ``count`` samples."""
    found: list[Feed] = []
    for feed in batches:
        if sum(batch_size(b) for b in found) >= count:
            break
        found.append(feed)
    return found


def ordered_pools(
    analysis: Analysis, options: PruneOptions, readers: Readers, ridge: float
) -> tuple[list[Pool], list[Table]]:
    """Pools in the order of their loss, and the losses themselves as tables."""
    grids = analysis.coupling.grids
    scores = np.array(grids.spread(mean_over_slices(analysis.groups)), np.float64)
    known: dict[int, float] = {}
    for pool in pools_of(analysis, options, scores):
        if not pool.steps:
            continue
        channels = np.concatenate([s.channels for s in pool.steps])
        measured = readers.of(channels, ridge)
        if not measured:
            continue
        order, losses = greedy_order(measured, channels)
        scores[order] = np.arange(order.size) / order.size
        known |= dict(zip(order.tolist(), np.diff(losses, prepend=0.0).tolist(), strict=True))
    pools = pools_of(analysis, options, scores)
    tables = []
    for pool in pools:
        gains = [sum(known.get(c, 0.0) for c in s.channels.tolist()) for s in pool.steps]
        tables.append(Table(np.arange(len(gains) + 1), np.cumsum([0.0, *gains])))
    return pools, tables


def distribute(
    analysis: Analysis, options: PruneOptions, pools: Sequence[Pool], tables: Sequence[Table]
) -> Decision:
    """Spread the budget over pools by rate-distortion, then meet it exactly."""
    fixed = fixed_shares(pools, options)
    costs = [_costs(analysis, options, p) for p in pools]
    free = [i for i, p in enumerate(pools) if i not in fixed and p.steps]
    distortions = [t.at(np.arange(len(p.steps) + 1)) for p, t in zip(pools, tables, strict=True)]
    given = sum(float(costs[i][_count(pools[i], share)]) for i, share in fixed.items())
    wanted = options.budget.requested - given
    most = sum(float(costs[i][-1]) for i in free)
    counts = allocate([costs[i] for i in free], [distortions[i] for i in free], min(wanted, most))
    chosen = dict(zip(free, counts, strict=True))
    keyed = [
        replace(p, steps=_keyed(p, costs[i], distortions[i], chosen.get(i, 0))) for i, p in enumerate(pools)
    ]
    return decide(analysis.groups, keyed, options.budget, analysis.cost, allocation="global", ratios=fixed)


def _costs(analysis: Analysis, options: PruneOptions, pool: Pool) -> np.ndarray:
    """What the first k steps of a pool remove, alone, as a share of what the budget counts: ``[steps + 1]``."""
    cost, groups = analysis.cost, analysis.groups
    found = [0.0]
    alive = np.ones(analysis.coupling.count, bool)
    if options.budget.kind == "sparsity":
        free = analysis.coupling.removable & (groups.producers > 0)
        total = max(float(groups.producers[free].sum()), 1.0)
        for step in pool.steps:
            found.append(found[-1] + float(groups.weights[step.channels].sum()) / total)
        return np.array(found)
    measure = cost.params if options.budget.kind == "params" else cost.macs
    whole = measure(alive)
    for step in pool.steps:
        alive[step.channels] = False
        found.append(1 - measure(groups.coupling.grids.complete(alive)) / max(whole, 1))
    return np.array(found)


def _count(pool: Pool, share: float) -> int:
    """Steps within a share."""
    return sum(1 for s in pool.steps if s.share <= share + 1e-9)


def _keyed(pool: Pool, costs: np.ndarray, distortions: np.ndarray, count: int) -> tuple:
    """Steps that the allocation takes come before all others; both by distortion for cost."""
    slopes = np.diff(distortions) / np.maximum(np.diff(costs), 1e-12)
    ranks = np.maximum.accumulate(slopes) if slopes.size else slopes
    squashed = ranks / (1 + np.abs(ranks))
    return tuple(
        replace(s, key=float(k - 2 if i < count else k))
        for i, (s, k) in enumerate(zip(pool.steps, squashed, strict=True))
    )


def refit_decision(
    model: ir.Model,
    analysis: Analysis,
    alive: np.ndarray,
    options: PruneOptions,
    batches: Sequence[Feed],
    ridge: float,
    iterations: int,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """Refitted tensors in the original's shapes."""
    coupling = analysis.coupling
    kept = coupling.kept(alive)
    small = apply(model, coupling, alive).model
    shapes = {v.name: v.shape for v in analysis.graph.inputs if v.shape is not None}
    graph = build_graph(small, shapes)
    originals = {v.name: v for v in views(analysis.graph)}
    along = {(s.tensor.name, s.axis): s for s in coupling.coupler.slices if s.rows == 1}
    pairs = []
    for view in views(graph):
        old = originals.get(view.name)
        if old is None or view.columns > MAX_COLUMNS:
            continue
        width = old.weight.shape[old.weight.out_axis]
        s = along.get((old.name, old.weight.out_axis))
        outputs = np.arange(width) if s is None else np.flatnonzero(kept.mask(s.ids))
        if outputs.size == view.weight.shape[view.weight.out_axis]:
            pairs.append(Pair(view, old, outputs, feeds_relu(view)))
    found = refit_in_order(
        small, graph, model, analysis.graph, pairs, batches,
        ridge=ridge, iterations=iterations, seed=options.seed, progress=progress,
    )  # fmt: skip
    slices = changed_slices(coupling, kept)
    by_name = {v.name: v for v in analysis.graph.values.values()}
    whole = {}
    for name, new in found.items():
        value = by_name[name]
        array = np.asarray(value.array())
        places = np.arange(array.size).reshape(array.shape)
        if value in slices:
            places = sliced(places, slices[value], kept)
        out = array.astype(np.float32).reshape(-1).copy()
        out[places.reshape(-1)] = new.reshape(-1)
        whole[name] = out.reshape(array.shape)
    return whole


def view_names(found: Sequence[View]) -> list[str]:
    """Of their weights."""
    return [v.name for v in found]
