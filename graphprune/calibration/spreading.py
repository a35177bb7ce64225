"""A budget spread over pools by rate-distortion, and met exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphprune.analysis import Analysis
from graphprune.budget import Decision, decide, measure_of
from graphprune.calibration.rate_distortion import allocate
from graphprune.calibration.tables import Table
from graphprune.choosing import PruneOptions, fixed_shares
from graphprune.selection import Pool, Step


def spread(
    analysis: Analysis, options: PruneOptions, pools: Sequence[Pool], tables: Sequence[Table]
) -> Decision:
    """How many steps every pool goes, by dynamic programming over its table; ``--ratio`` fixes some.

    What the pools remove is counted one by one; where they depend on each other (params, macs), or a step is too
    large, the next steps by distortion for cost fill what is left. Raises BudgetError.
    """
    fixed = fixed_shares(pools, options)
    costs = [_costs(analysis, options, p) for p in pools]
    free = [i for i, p in enumerate(pools) if i not in fixed and p.steps]
    distortions = [t.at(np.arange(len(p.steps) + 1)) for p, t in zip(pools, tables, strict=True)]
    given = sum(float(costs[i][_steps_within(pools[i], share)]) for i, share in fixed.items())
    most = sum(float(costs[i][-1]) for i in free)
    wanted = min(options.budget.wanted - given, most)
    counts = allocate([costs[i] for i in free], [distortions[i] for i in free], wanted)
    chosen = dict(zip(free, counts, strict=True))
    ranked = [
        replace(p, steps=_ranked(p, costs[i], distortions[i], chosen.get(i, 0))) for i, p in enumerate(pools)
    ]
    return decide(analysis.groups, ranked, options.budget, analysis.cost, allocation="global", ratios=fixed)


def _costs(analysis: Analysis, options: PruneOptions, pool: Pool) -> np.ndarray:
    """What the first k steps of a pool remove alone, as a share of what the budget counts: ``[steps + 1]``."""
    cost, groups = analysis.cost, analysis.groups
    if options.budget.kind == "sparsity":
        free = analysis.coupling.removable & (groups.producers > 0)
        total = max(float(groups.producers[free].sum()), 1.0)
        return np.cumsum([0.0, *(float(groups.weights[s.channels].sum()) / total for s in pool.steps)])
    measure = measure_of(groups, options.budget, cost)
    alive = np.ones(analysis.coupling.count, bool)
    found = [0.0]
    for step in pool.steps:
        alive[step.channels] = False
        found.append(measure(alive))
    return np.maximum.accumulate(found)


def _steps_within(pool: Pool, share: float) -> int:
    return sum(1 for s in pool.steps if s.share <= share + 1e-9)


def _ranked(pool: Pool, costs: np.ndarray, distortions: np.ndarray, count: int) -> tuple[Step, ...]:
    """Steps that the allocation takes come before all others; both by distortion for cost."""
    slopes = np.diff(distortions) / np.maximum(np.diff(costs), 1e-12)
    ranks = np.maximum.accumulate(slopes) if slopes.size else slopes
    within = ranks / (1 + np.abs(ranks))
    return tuple(
        replace(s, key=float(k - 2 if i < count else k))
        for i, (s, k) in enumerate(zip(pool.steps, within, strict=True))
    )
