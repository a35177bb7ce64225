"""PaS: pruning as search. Binary masks by a straight-through estimator, drawn to the budget by a penalty.

A mask is 1 where its parameter is above 1/2. The estimator hands the mask's gradient to the parameter, scaled to a root
mean square of 1; the penalty ``beta (cost - target)^2`` of the paper adds ``push * dcost/dmask`` to it. ``push``
follows the budget by itself: a multiplier, raised while too much stays and lowered while too little does, plus a part
in proportion to the excess. So there is no beta to search for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.methods.registry import TrainedMethod, register

if TYPE_CHECKING:  # torch is imported when the first mask is made
    import torch

    from graphprune.relaxation import MonotoneBudget, Threshold

GAIN = 0.05
"""What the multiplier learns of the excess (a share of the whole cost) in one step."""

STIFFNESS = 5.0
"""The part in proportion to the excess."""


def _relax(
    x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, memory: Threshold
) -> torch.Tensor:
    import torch

    slope = torch.ones_like(x) if cost is None else cost.to(x)
    kept = float((slope * (x.detach() > 0.5)).sum())
    return _binary(x, slope, kept, budget, float(slope.sum()), memory)


def _relax_curve(x: torch.Tensor, budget: MonotoneBudget, tau: float, memory: Threshold) -> torch.Tensor:
    import torch

    binary = (x.detach() > 0.5).double().cpu().numpy()
    kept, slope = budget.value_and_gradient(binary)
    whole, _ = budget.value_and_gradient(binary * 0 + 1)
    return _binary(x, torch.from_numpy(slope).to(x), kept, budget.limit, whole, memory)


def _binary(
    x: torch.Tensor, slope: torch.Tensor, kept: float, budget: float, whole: float, memory: Threshold
) -> torch.Tensor:
    """Masks ``[n]`` of 0 and 1; ``slope`` is the cost's derivative with respect to them."""
    import torch

    from graphprune.relaxation import straight_through

    excess = (kept - budget) / max(whole, 1e-12)
    if torch.is_grad_enabled():
        memory.value = max((memory.value or 0.0) + GAIN * excess, 0.0)
    push = (memory.value or 0.0) + STIFFNESS * excess
    return straight_through(x, (x.detach() > 0.5).to(x), push * slope / slope.mean().clamp_min(1e-12))


def _relax_rows(x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """N of every M: the budget holds in every row by itself, so the k largest are on and nothing has to push."""
    from graphprune.relaxation import hard_rows, straight_through

    return straight_through(x, hard_rows(x, k, tau))


register(
    TrainedMethod(
        name="pas",
        summary="binary masks, straight-through estimator, self-tuned penalty",
        citation="Li et al. 2022, arXiv:2206.01198",
        relax=_relax,
        relax_curve=_relax_curve,
        relax_rows=_relax_rows,
        start=1.0,
        box=(0.0, 1.0),
        defaults={"mask_lr": 0.02, "snap": 0.0},
    )
)
