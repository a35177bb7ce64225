"""Differentiable top-k with a closed-form backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from graphprune.relaxation.pieces import Pieces, is_long
from graphprune.relaxation.root import Threshold
from graphprune.relaxation.threshold import solve


def soft_topk(
    x: torch.Tensor,
    budget: float,
    tau: float,
    cost: torch.Tensor | None = None,
    *,
    warm: Threshold | None = None,
) -> torch.Tensor:
    """Soft masks ``s_i = sigmoid((x_i - theta) / tau)`` [n] with ``sum_i c_i s_i = budget`` (SMART, 3 to 5).

    ``x`` [n] is float32 or float64 and ``s`` of the same type; ``cost`` [n] is at least 0 (None: all 1, so
    that ``budget`` is the paper's k). A budget of 0 or of the total cost gives exact zeros or ones, without
    a gradient. ``warm`` is the threshold of the step before, updated to this one.

    The backward pass is proposition 2.2, generalised to costs; it takes O(n) time, keeps ``x`` and ``cost``
    only, and cannot be differentiated again.

    Raises ValueError for a temperature that is not positive, a budget outside [0, total], scores that are
    not finite, and costs that are negative or of another shape.
    """
    found: torch.Tensor = _SoftTopK.apply(x, budget, tau, cost, warm)  # type: ignore[no-untyped-call]
    return found


class _SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        budget: float,
        tau: float,
        cost: torch.Tensor | None,
        warm: Threshold | None,
    ) -> torch.Tensor:
        s = torch.empty_like(x)
        start = None if warm is None else warm.value
        ctx.tau = tau
        ctx.theta = solve(x, budget, tau, cost, start, s, exact=not is_long(x))
        if warm is not None:
            warm.value = ctx.theta
        ctx.save_for_backward(x, cost)
        return s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        x, cost = ctx.saved_tensors
        pieces = Pieces(x, ctx.tau, cost, torch.float32 if is_long(x) else torch.float64)
        return pieces.gradient(ctx.theta, upstream), None, None, None, None
