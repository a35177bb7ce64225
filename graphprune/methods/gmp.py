"""GMP: gradual magnitude pruning. The smallest units are off, and more of them as the budget tightens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.methods.registry import TrainedMethod, register

if TYPE_CHECKING:  # torch is imported when the first mask is made
    import torch

    from graphprune.relaxation import MonotoneBudget, Threshold

_NARROW = 1e-9
"""A temperature at which soft masks are hard, in units of the largest score."""


def _hard(
    x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, warm: Threshold
) -> torch.Tensor:
    """1 for the largest units within the budget; whoever is off today may come back."""
    import torch

    from graphprune.relaxation import hard_topk

    spent = None if cost is None else cost.double().cpu().numpy()
    kept = hard_topk(x.detach().double().cpu().numpy(), budget, spent)
    return torch.from_numpy(kept).to(x)


def _hard_curve(x: torch.Tensor, budget: MonotoneBudget, tau: float, warm: Threshold) -> torch.Tensor:
    """The same under a budget of parameters or MACs: the largest units, the last one rounded down."""
    from graphprune.relaxation import soft_budget

    scores = x.detach().double()
    narrow = _NARROW * max(float(scores.abs().max()), _NARROW)
    return (soft_budget(scores, budget, narrow) > 1 - 1e-6).to(x)


register(
    TrainedMethod(
        name="gmp",
        summary="hard masks of the largest weights, cubic budget",
        citation="Zhu and Gupta 2017, arXiv:1710.01878",
        relax=_hard,
        relax_curve=_hard_curve,
        structures=("channel", "block"),
        learns=False,
    )
)
