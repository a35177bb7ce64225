"""SMART: separate learnable masks through a differentiable top-k whose temperature falls.

Logits ``m`` (one for each unit), trained with the weights on the training loss; soft masks
``s = sigma((m - theta) / tau)`` with ``theta`` solved so that the budget holds at every step (methods.md
A1); ``tau`` falls every mini-batch (A3). For N:M there are no logits: the weights' own sizes compete inside
every group (A5, algorithm 2).
"""

from __future__ import annotations

import torch

from graphprune.methods.registry import TrainedMethod, register
from graphprune.relaxation import MonotoneBudget, Threshold, soft_budget, soft_topk, soft_topk_rows


def _relax(
    x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, warm: Threshold
) -> torch.Tensor:
    return soft_topk(x, budget, tau, cost, warm=warm)


def _relax_curve(x: torch.Tensor, budget: MonotoneBudget, tau: float, warm: Threshold) -> torch.Tensor:
    return soft_budget(x, budget, tau, warm=warm)


SMART = register(
    TrainedMethod(
        name="smart",
        summary="learnable masks, differentiable top-k, falling temperature",
        citation="SMART: separate, dynamic and differentiable pruning (arXiv:2403.19969)",
        relax=_relax,
        relax_curve=_relax_curve,
        relax_rows=soft_topk_rows,
    )
)
