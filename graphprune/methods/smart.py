"""SMART: separate learnable masks through a differentiable top-k whose temperature falls.

Logits ``m`` (one for each unit), trained with the weights on the training loss; soft masks
``s = sigma((m - theta) / tau)`` with ``theta`` solved so that the budget holds at every step (methods.md
A1); ``tau`` falls every mini-batch (A3). For N:M there are no logits: the weights' own sizes compete inside
every group (A5, algorithm 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.methods.registry import TrainedMethod, register

if TYPE_CHECKING:  # torch is imported when the first mask is made
    import torch

    from graphprune.relaxation import MonotoneBudget, Threshold


def _relax(
    x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, memory: Threshold
) -> torch.Tensor:
    from graphprune.relaxation import soft_topk

    return soft_topk(x, budget, tau, cost, warm=memory)


def _relax_curve(x: torch.Tensor, budget: MonotoneBudget, tau: float, memory: Threshold) -> torch.Tensor:
    from graphprune.relaxation import soft_budget

    return soft_budget(x, budget, tau, warm=memory)


def _relax_rows(x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    from graphprune.relaxation import soft_topk_rows

    return soft_topk_rows(x, k, tau)


SMART = register(
    TrainedMethod(
        name="smart",
        summary="learnable masks, differentiable top-k, falling temperature",
        citation="SMART: separate, dynamic and differentiable pruning (arXiv:2403.19969)",
        source_of_rows="weights",
        relax=_relax,
        relax_curve=_relax_curve,
        relax_rows=_relax_rows,
    )
)
