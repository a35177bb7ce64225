"""A hard selection of units within a budget."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-9
"""A budget computed as a share of the total may miss 0 or the total by this share of it."""

_EXACT = 1e-12
"""Of the total cost: a budget computed as (1 - 0.3) * 100 may be a rounding error below 70."""


def hard_topk(
    x: np.ndarray, budget: float, cost: np.ndarray | None = None, keep: np.ndarray | None = None
) -> np.ndarray:
    """Units to keep, bool [n], whose cost is at most ``budget``.

    Greedy by falling score ``x`` [n], equal scores in their order: units forced by ``keep`` [n] (bool)
    first, then the longest prefix that the budget allows, then later units that still fit. ``cost`` [n] is
    at least 0 (None: all 1).

    Raises ValueError for a budget outside [0, total], one below the cost of the forced units, scores that
    are not a number, and costs that are negative or not finite.
    """
    x = np.asarray(x)
    if np.isnan(x).any():
        raise ValueError("some scores are not a number: lower the learning rate of the masks")
    cost = np.ones(x.size) if cost is None else np.asarray(cost, np.float64)
    if cost.shape != x.shape or x.ndim != 1:
        raise ValueError(f"costs of shape {cost.shape} for scores of shape {x.shape}: give one cost for each")
    if not (np.isfinite(cost).all() and (cost >= 0).all()):
        raise ValueError("some costs are negative or not finite: give what each unit costs, at least 0")
    total = float(cost.sum())
    budget = check_budget(budget, total)
    kept = np.zeros(x.size, bool) if keep is None else np.array(keep, bool)
    forced = float(cost[kept].sum())
    room = budget - forced + _EXACT * total
    if room < 0:
        raise ValueError(f"units that must stay cost {forced:g}, over the budget of {budget:g}: force fewer")
    order = np.argsort(-x, kind="stable")
    order = order[~kept[order]]
    while order.size:
        spent = np.cumsum(cost[order])
        fits = int(np.searchsorted(spent, room, side="right"))
        kept[order[:fits]] = True
        room -= float(spent[fits - 1]) if fits else 0.0
        order = order[fits:]
        order = order[cost[order] <= room]
    return kept


def check_budget(budget: float, total: float) -> float:
    """The budget, moved onto 0 or ``total`` where only rounding puts it outside.

    Raises ValueError outside [0, total].
    """
    slack = ROUNDING * total
    if not -slack <= budget <= total + slack:
        raise ValueError(f"a budget of {budget:g} is out of reach: give one from 0 to {total:g}, the total")
    return min(max(float(budget), 0.0), total)
