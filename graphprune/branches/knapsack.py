"""Branches in one shot: each measured alone, the best set by adding up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.branches.registry import Question, branch_method
from graphprune.branches.removal import Chosen, Removal
from graphprune.branches.trials import Trials
from graphprune.calibration.rate_distortion import UNITS, allocate


@dataclass(frozen=True)
class Option:
    """One way to treat a branch and what lies inside of it: what is removed, in the budget's measure, at what loss."""

    cost: float
    loss: float
    chosen: Chosen


@branch_method("branch-knapsack", citation="Zhang et al. 2024, arXiv:2404.11098", looks=True)
def branch_knapsack(question: Question) -> Chosen:
    """Each branch removed alone, output changes added up: the set with the least sum that meets the budget.

    Exact by dynamic programming (see ``allocate``): of all sets that remove at least the budget (with ``sparsity``:
    the nearest number of branches), the one with the least sum; none of its branches could stay. Branches inside
    others go with them or by themselves.
    """
    removal, trials = question.removal, Trials(question)
    costs = [removal.share({i}) for i in range(len(removal.branches))]
    losses = [trials.distance({i}) for i in range(len(removal.branches))]
    return cheapest(removal, costs, losses)


def cheapest(removal: Removal, costs: Sequence[float], losses: Sequence[float]) -> Chosen:
    """The set with the least sum of ``losses`` whose ``costs`` (both per branch, alone) reach the budget."""
    want = removal.budget.requested
    if removal.budget.kind == "sparsity":
        want = np.ceil(want * len(costs) - 0.5) / max(len(costs), 1)
    finite = np.minimum(losses, 1e30)
    pools = [_options(root, _inside(removal), costs, finite, want) for root in _outermost(_inside(removal))]
    alone = sum(max(o.cost for o in pool) for pool in pools)  # what branches share goes with the last of them
    picked = allocate(
        [np.array([o.cost for o in pool]) for pool in pools],
        [np.array([o.loss for o in pool]) for pool in pools],
        min(want, alone),
    )
    chosen = frozenset(i for pool, k in zip(pools, picked, strict=True) for i in pool[k].chosen)
    for i in sorted(chosen, key=lambda i: -finite[i]):  # costs nothing, or went with others
        if removal.share(chosen - {i}) >= want - 1e-9:
            chosen -= {i}
    return chosen


def _inside(removal: Removal) -> dict[int, list[int]]:
    """Branch -> those directly inside of it."""
    everything = {i: removal.gone({i}) - {i} for i in range(len(removal.branches))}
    return {
        i: sorted(j for j in inner if not any(j in everything[k] for k in inner))
        for i, inner in everything.items()
    }


def _outermost(inside: dict[int, list[int]]) -> list[int]:
    nested = {j for inner in inside.values() for j in inner}
    return [i for i in inside if i not in nested]


def _options(
    branch: int,
    inside: dict[int, list[int]],
    costs: Sequence[float],
    losses: Sequence[float] | np.ndarray,
    want: float,
) -> list[Option]:
    """Everything worth considering for a branch: keep it (with any choice inside), or remove it whole."""
    kept = [Option(0.0, 0.0, frozenset())]
    for inner in inside[branch]:
        more = _options(inner, inside, costs, losses, want)
        kept = _worthwhile(
            [Option(a.cost + b.cost, a.loss + b.loss, a.chosen | b.chosen) for a in kept for b in more], want
        )
    return _worthwhile([*kept, Option(costs[branch], float(losses[branch]), frozenset({branch}))], want)


def _worthwhile(options: Sequence[Option], want: float) -> list[Option]:
    """Options that no other one beats in both, one for each cost that ``allocate`` tells apart; fewest first."""
    best: dict[int, Option] = {}
    for option in options:
        unit = int(np.floor(min(option.cost / want, 1.0) * UNITS + 1e-9)) if want > 0 else 0
        if unit not in best or option.loss < best[unit].loss:
            best[unit] = option
    found: list[Option] = []
    for unit in sorted(best, reverse=True):
        if not found or best[unit].loss < found[-1].loss:
            found.append(best[unit])
    return found[::-1]
