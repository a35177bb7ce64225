"""Masks of 0 and 1: the largest units within the budget, without a gradient."""

from __future__ import annotations

import torch

from graphprune.hard_topk import hard_topk
from graphprune.relaxation.budgets import MonotoneBudget, soft_budget
from graphprune.relaxation.root import Threshold

_NARROW = 1e-9
"""A temperature at which soft masks are hard, in units of the largest score."""


def hard_masks(
    x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, memory: Threshold
) -> torch.Tensor:
    """1 for the largest of ``x`` ``[n]`` whose cost fits into ``budget``, the earlier of equals first."""
    spent = None if cost is None else cost.double().cpu().numpy()
    kept = hard_topk(x.detach().double().cpu().numpy(), budget, spent)
    return torch.from_numpy(kept).to(x)


def hard_masks_curve(x: torch.Tensor, budget: MonotoneBudget, tau: float, memory: Threshold) -> torch.Tensor:
    """The same under a budget of parameters or MACs: the largest units, the last one rounded down."""
    scores = x.detach().double()
    narrow = _NARROW * max(float(scores.abs().max()), _NARROW)
    return (soft_budget(scores, budget, narrow) > 1 - 1e-6).to(x)


def hard_rows(x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """1 for the ``k`` largest of every row of ``x`` ``[rows, M]``, the earlier of equals first."""
    order = torch.argsort(x.detach(), dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(x).scatter_(1, order, 1.0).masked_fill_(x == float("-inf"), 0.0)
