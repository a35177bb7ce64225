"""Rate-distortion allocation: how much to take from every pool so that measured distortions add up to the least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNITS = 4096
"""Costs are rounded to this many units of the budget."""


def allocate(costs: Sequence[np.ndarray], distortions: Sequence[np.ndarray], budget: float) -> list[int]:
    """Choose one option of every pool: least sum of ``distortions`` with a sum of ``costs`` of at least ``budget``.

    costs[i], distortions[i]: float ``[options]`` (what option k of pool i removes, and what that does). Exact by
    dynamic programming (knapsack): at most the least sum that reaches the budget, for costs that may miss it by one
    part in UNITS for each pool (they are rounded up).
    Xu et al. 2023, arXiv:2308.10438. Raises ValueError where the budget is out of reach.
    """
    if sum(float(c.max()) for c in costs) < budget - 1e-9:
        raise ValueError("the budget is more than all options together remove")
    if budget <= 0:
        return [int(np.argmin(d)) for d in distortions]
    units = [np.ceil(c / budget * UNITS - 1e-9).astype(np.int64) for c in costs]
    reach = min(UNITS, int(sum(u.max() for u in units)))
    best = np.full(reach + 1, np.inf)
    best[0] = 0.0
    picked = np.zeros((len(costs), reach + 1), np.int16)
    came = np.zeros((len(costs), reach + 1), np.int64)
    for i, (unit, distortion) in enumerate(zip(units, distortions, strict=True)):
        new = np.full(reach + 1, np.inf)
        for option, (u, d) in enumerate(zip(unit, distortion, strict=True)):
            total = best + d
            at = np.minimum(np.arange(reach + 1) + u, reach)  # more than the budget counts as the budget
            order = np.lexsort((total, at))
            targets, first = np.unique(at[order], return_index=True)
            sources = order[first]
            better = total[sources] < new[targets]
            new[targets[better]] = total[sources[better]]
            picked[i, targets[better]] = option
            came[i, targets[better]] = sources[better]
        best = new
    at_end = reach
    found = []
    for i in reversed(range(len(costs))):
        found.append(int(picked[i, at_end]))
        at_end = int(came[i, at_end])
    return found[::-1]
