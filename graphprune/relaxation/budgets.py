"""Soft masks under any budget that grows with every mask."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from graphprune.hard_topk import ROUNDING
from graphprune.relaxation.checks import check_scores, check_temperature
from graphprune.relaxation.root import Threshold, find_root

_CLOSE = 1e-10
_FAR = 40.0
"""Temperatures beyond which a mask is 0 or 1 in float64, up to 4e-18."""


class MonotoneBudget(Protocol):
    """What soft masks cost, and what they may.

    The cost must not fall when a mask grows: parameters or MACs of coupled channels, which are products of
    masks on both sides of a layer, or a measured latency between its samples.
    """

    @property
    def limit(self) -> float:
        """The cost to meet."""

    def value_and_gradient(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        """Cost of the masks ``s`` (float64 [n], 0 to 1) and its derivative by each, [n]."""


def soft_budget(
    x: torch.Tensor, budget: MonotoneBudget, tau: float, warm: Threshold | None = None
) -> torch.Tensor:
    """Soft masks ``s_i = sigmoid((x_i - theta) / tau)`` [n] that cost exactly ``budget.limit``.

    ``x`` [n] is float32 or float64 and ``s`` of the same type. A limit within rounding of what
    masks of 0 or of 1 cost gives these. ``warm`` is the threshold of the step before, updated to this one.
    The backward pass is closed (implicit function theorem, with b the gradient of the cost):

        grad_j = s'_j / tau (v_j - b_j (v s') / (b s'))

    Raises ValueError for a temperature that is not positive, scores that are not finite, and a limit that
    no masks meet.
    """
    found: torch.Tensor = _SoftBudget.apply(x, budget, tau, warm)  # type: ignore[no-untyped-call]
    return found


class _SoftBudget(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, budget: MonotoneBudget, tau: float, warm: Threshold | None
    ) -> torch.Tensor:
        check_temperature(tau)
        least, most = check_scores(x, 1)
        masks = _Masks(x.detach().cpu().double().numpy(), budget, tau)
        low, high = least - _FAR * tau, most + _FAR * tau
        start = (low + high) / 2
        if warm is not None and warm.value is not None and low < warm.value < high:
            start = warm.value
        tolerance = _CLOSE * abs(budget.limit)
        root = find_root(
            masks.evaluate,
            low,
            high,
            start=start,
            close=lambda excess, _: excess <= tolerance,
            guess=masks.cut,
        )
        if abs(root.excess) > tolerance:
            masks.check_reach()
        if warm is not None:
            warm.value = root.theta
        ctx.tau = tau
        ctx.save_for_backward(*(torch.from_numpy(a).to(x.device) for a in (masks.slope, masks.by_mask)))
        return torch.from_numpy(masks.s).to(x.device, x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        slope, b = ctx.saved_tensors
        v = upstream.to(torch.float64)
        spent = torch.dot(b, slope)
        mean = torch.dot(v, slope) / spent if spent > 0 else spent
        return (slope / ctx.tau * (v - b * mean)).to(upstream.dtype), None, None, None


class _Masks:
    """Masks at the threshold tried last, their slopes s (1 - s), and the derivative of the cost by each."""

    def __init__(self, x: np.ndarray, budget: MonotoneBudget, tau: float) -> None:
        self.x, self.budget, self.tau = x, budget, tau
        self.s = self.slope = self.by_mask = np.zeros(0)
        self._excess = 0.0

    def evaluate(self, theta: float) -> tuple[float, float]:
        """Excess over the limit at ``theta``, and how fast it falls there."""
        u = (self.x - theta) / self.tau
        e = np.exp(-np.abs(u))
        self.s = np.where(u < 0, e, 1.0) / (1 + e)
        self.slope = e / (1 + e) ** 2
        cost, by_mask = self.budget.value_and_gradient(self.s)
        self.by_mask = np.asarray(by_mask, np.float64)
        self._excess = cost - self.budget.limit
        return self._excess, float(self.by_mask @ self.slope) / self.tau

    def cut(self) -> float:
        """Where a hard selection would cut, were the cost linear with today's derivatives."""
        order = np.argsort(-self.x, kind="stable")
        spent = np.cumsum(self.by_mask[order])
        last = int(np.searchsorted(spent, self.by_mask @ self.s - self._excess))
        return float(self.x[order[min(last, order.size - 1)]]) if order.size else math.nan

    def check_reach(self) -> None:
        """Raises ValueError if the limit lies beyond what masks of 0 or 1 cost; at these, takes them."""
        ends = []
        for value in (0.0, 1.0):
            s = np.full(self.x.size, value)
            ends.append((self.budget.value_and_gradient(s)[0], s))
        (least, zeros), (most, ones) = ends
        limit, slack = self.budget.limit, ROUNDING * max(abs(least), abs(most))
        if not least - slack <= limit <= most + slack:
            raise ValueError(
                f"a budget of {limit:g} is out of reach: these units cost from {least:g} to {most:g}"
            )
        if limit <= least + slack or limit >= most - slack:
            self.s = zeros if limit <= least + slack else ones
            self.slope = np.zeros_like(self.s)
