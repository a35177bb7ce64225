"""The threshold at which soft masks meet a linear budget exactly."""

from __future__ import annotations

import math

import torch

from graphprune.hard_topk import check_budget
from graphprune.relaxation.checks import check_cost, check_scores, check_temperature
from graphprune.relaxation.pieces import Pieces, is_long
from graphprune.relaxation.root import Close, Root, find_root

_EXACT = 1e-10
"""Closeness of the sum to the budget, as a share of what is kept or of what is dropped."""

_NOISE, _SINGLE_NOISE = 1e-14, 1e-6
"""Rounding of float64 and float32 sums, as a share of them."""

_FLAT = 80.0
"""A gap of this many temperatures at the cut has a middle where no mask differs from 0 or 1 in float64."""


def solve_threshold(
    x: torch.Tensor,
    budget: float,
    tau: float,
    cost: torch.Tensor | None = None,
    start: float | None = None,
) -> float:
    """theta with ``sum_i c_i sigmoid((x_i - theta) / tau) = budget`` (SMART, equations 3 to 5).

    ``x`` [n] is float32 or float64, ``cost`` [n] at least 0 (None: all 1), ``start`` a threshold to begin
    at. It is -inf where the budget is the total cost (every mask is 1) and inf where it is 0. Where the
    hard cut meets the budget across a gap of more than 80 tau, it is the middle of the gap, from any start.

    Raises ValueError for a temperature that is not positive, a budget outside [0, total], scores that are
    not finite, and costs that are negative or of another shape.
    """
    with torch.no_grad():
        return solve(x, budget, tau, cost, start, torch.empty_like(x), exact=True)


def solve(
    x: torch.Tensor,
    budget: float,
    tau: float,
    cost: torch.Tensor | None,
    start: float | None,
    out: torch.Tensor,
    *,
    exact: bool,
) -> float:
    """``solve_threshold``; the masks at the threshold are written to ``out`` [n].

    Their sum is within 1e-10 of the budget (of what is kept or of what is dropped, whichever is less); where
    it need not be ``exact``, within 1e-7 of it and every mask within 1e-6, which rounding to float32 hides.
    """
    check_temperature(tau)
    least, most = check_scores(x, 1)
    total = check_cost(cost, x)
    budget = check_budget(budget, total)
    if budget in (0.0, total):
        out.fill_(0 if budget == 0 else 1)
        return math.inf if budget == 0 else -math.inf
    # Were all scores equal to a, theta would be a - tau logit(K / C); it lies between the extremes of that.
    shift = tau * (math.log(budget) - math.log(total - budget))
    slack = 1e-6 * tau + 8 * math.ulp(max(abs(least), abs(most)) + abs(shift))
    low, high = least - shift - slack, most - shift + slack

    def guess() -> float:
        return _cut(x, budget, cost) if tau < (most - least) / 1000 else (low + high) / 2

    def search(pieces: Pieces, start: float | None, close: Close, out: torch.Tensor | None) -> Root:
        def evaluate(theta: float) -> tuple[float, float]:
            found, unsettled = pieces.sums(theta, out)
            return found - budget, unsettled / tau

        return find_root(evaluate, low, high, start=start, close=close, guess=guess)

    def near(excess: float, fall: float) -> bool:
        return excess <= max(1e-3 * tau * fall, _SINGLE_NOISE * budget)

    smaller = min(budget, total - budget)
    tolerance = max(_EXACT * smaller, _NOISE * budget)

    def met(excess: float, fall: float) -> bool:
        if excess <= tolerance:
            return True
        return not exact and excess <= min(1e-7 * smaller, 1e-6 * tau * fall)

    if is_long(x):
        start = search(Pieces(x, tau, cost, torch.float32), start, near, None).improved
    pieces = Pieces(x, tau, cost, torch.float64)
    root = search(pieces, start, met, out)
    if root.fall * tau <= 4 * tolerance + _NOISE * total:
        middle = _flat_gap(x, root.theta, budget, tau, cost)
        if middle is not None:
            pieces.sums(middle, out)
            return middle
    return root.theta


def _cut(x: torch.Tensor, budget: float, cost: torch.Tensor | None) -> float:
    """Where the hard selection cuts: between two scores, or at the one that is kept in part."""
    n = x.numel()
    if cost is None:
        whole = int(budget)
        below = float(torch.kthvalue(x, n - whole).values)
        if whole < budget:
            return below
        return (below + float(torch.kthvalue(x, n - whole + 1).values)) / 2
    ordered, order = torch.sort(x, descending=True)
    spent = torch.cumsum(cost.to(x.device).double()[order], 0)
    whole = min(int(torch.searchsorted(spent, budget, right=True)), n - 1)
    if whole == 0 or float(spent[whole - 1]) < budget:
        return float(ordered[whole])
    return (float(ordered[whole - 1]) + float(ordered[whole])) / 2


def _flat_gap(
    x: torch.Tensor, theta: float, budget: float, tau: float, cost: torch.Tensor | None
) -> float | None:
    """The middle of the gap around ``theta``, if it is flat and the units above it cost the budget.

    Any theta in there gives the same masks in floats; as tau falls the exact one tends to the middle.
    """
    kept = x > theta
    held = kept.sum() if cost is None else cost.to(x.device).double()[kept].sum()
    if abs(float(held) - budget) > _EXACT * budget:
        return None
    above = float(torch.where(kept, x, math.inf).min())
    below = float(torch.where(kept, -math.inf, x).max())
    if above - below <= _FLAT * tau:
        return None
    return (above + below) / 2
