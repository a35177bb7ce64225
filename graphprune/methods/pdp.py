"""PDP: parameter-free differentiable pruning. Soft masks are functions of the weights themselves.

Every layer keeps the share that a global ranking by magnitude gave it at the start of the search; it is reached
along a straight line. In a layer, with ``t`` midway between the squares of the last unit that stays and the first
that goes, ``m = sigma((w^2 - t) / tau)`` at a constant temperature (equations 2 and 3; methods.md B2). The masks sum
to the target up to the softness of those near the threshold, and exactly once they are hard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.methods.registry import TrainedMethod, register
from graphprune.methods.stages import linear

if TYPE_CHECKING:  # torch is imported when the first mask is made
    import torch

    from graphprune.relaxation import Threshold

TEMPERATURE = 0.0005
"""In standard deviations of the layer's squares; the published 1e-4 is for raw weights, with squares of about 1e-3."""


def _relax(
    x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, memory: Threshold
) -> torch.Tensor:
    import torch

    squares = x.square()
    squares = squares / squares.detach().std(correction=0).clamp_min(1e-30)
    order = torch.argsort(squares.detach(), descending=True, stable=True)
    spent = torch.arange(1, x.numel() + 1) if cost is None else torch.cumsum(cost.cpu()[order.cpu()], 0)
    kept = int((spent <= budget * (1 + 1e-9)).sum())
    if kept == 0 or kept == x.numel():
        return torch.full_like(x, float(kept > 0))
    ranked = squares.detach()[order]
    t = (ranked[kept - 1] + ranked[kept]) / 2
    return torch.sigmoid((squares - t) / tau)


def _relax_rows(x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    import torch

    real = x > float("-inf")
    squares = torch.where(real, x, 0.0).square()
    ranked = torch.where(real, squares, -1.0).detach().sort(dim=1, descending=True).values
    t = (ranked[:, k - 1] + ranked[:, k]) / 2 if k < x.shape[1] else ranked[:, -1] - 1e30 * tau
    return torch.sigmoid((squares - t[:, None]) / tau) * real


register(
    TrainedMethod(
        name="pdp",
        summary="soft masks of the weights themselves, at a constant temperature",
        citation="Cho et al. 2023, arXiv:2305.11203",
        source="weights",
        relax=_relax,
        relax_rows=_relax_rows,
        schedule=linear,
        layered=True,
        defaults={"init_temp": TEMPERATURE, "final_temp": TEMPERATURE, "budget_anneal": 2 / 3, "snap": 0.0},
    )
)
