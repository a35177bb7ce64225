"""Differentiable top-k of many short rows: N of every M (SMART, algorithm 2)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from graphprune.relaxation.checks import check_scores, check_temperature

_PIECE = 2**15
"""Scores worked on at once on a CPU: 256 KiB in float64 stay in the cache."""

_FLAT = 80.0
"""A gap of this many temperatures at the cut: the threshold is its middle, as in solve_threshold."""

_FAR = 700.0
"""Temperatures from the cut at which exp(-u) is still a normal float64."""

_EVERYTHING = -1e300
"""The threshold of rows that keep every real entry: below these, above padding."""

_STEPS = 20


def soft_topk_rows(x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """Soft masks ``[rows, M]`` of which every row sums to ``k``, or to its real entries if they are fewer.

    ``s = sigmoid((x - theta_row) / tau)``. ``x`` [rows, M] is float32 or float64 and ``s`` of the same type;
    entries of -inf are padding, with masks of 0. The backward pass is proposition 2.2 for every row; it
    takes O(rows M) time, keeps ``x`` and one threshold for each row, and cannot be differentiated again.

    Raises ValueError for a temperature that is not positive, ``k`` outside 0 to M, and scores that are inf
    or not a number.
    """
    found: torch.Tensor = _SoftTopKRows.apply(x, k, tau)  # type: ignore[no-untyped-call]
    return found


class _SoftTopKRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
        check_temperature(tau)
        check_scores(x, 2, padding=True)
        if not 0 <= k <= x.shape[1]:
            raise ValueError(
                f"{k} of every {x.shape[1]} cannot be kept: give a number from 0 to {x.shape[1]}"
            )
        s = torch.empty_like(x)
        thetas = torch.empty(x.shape[0], dtype=torch.float64, device=x.device)
        for part in _parts(x):
            columns = x[part].T.double().contiguous()
            theta = _solve(columns, k, tau)
            s[part].T.copy_(torch.sub(columns, theta).div_(tau).sigmoid_())
            thetas[part] = theta
        ctx.tau = tau
        ctx.save_for_backward(x, thetas)
        return s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, thetas = ctx.saved_tensors
        grad = torch.empty_like(x)
        for part in _parts(x):
            q = torch.sub(x[part].T, thetas[part]).abs_().div_(-ctx.tau).sigmoid_()
            slope = q - q * q
            v = upstream[part].T.double()
            mean = (v * slope).sum(0) / slope.sum(0).clamp_(min=math.ulp(0.0))
            grad[part].T.copy_(slope.mul_(v - mean).div_(ctx.tau))
        return grad, None, None


def _parts(x: torch.Tensor) -> list[slice]:
    rows, width = x.shape
    size = max(_PIECE // max(width, 1), 1) if x.device.type == "cpu" else max(rows, 1)
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


def _solve(columns: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """The threshold of every row, float64 ``[rows]``; ``columns`` is the transposed piece ``[M, rows]``.

    With the k largest scores in H and the others in L, the sum is k where the excess E = sum_L sigmoid(u)
    equals the deficit D = sum_H sigmoid(-u). Nothing cancels in log E - log D, and its slope in theta / tau
    is between -2 and -1/2 everywhere (below the middle of the cut H alone gives -1/2, above it L does), so
    that Newton from that middle takes few steps at any temperature.
    """
    rows = columns.shape[1]
    if k == 0:
        return columns.new_full((rows,), math.inf)
    ordered = _sorted(columns)
    if k == len(ordered):
        return columns.new_full((rows,), _EVERYTHING)
    above, below = ordered[k - 1], ordered[k]
    short = below == -math.inf  # no more real entries than k: all of them are kept
    middle = torch.where(short, above, (above + below) / 2)
    t = torch.zeros_like(middle)
    offsets = ((ordered - middle) / tau).clamp_(-_FAR, _FAR)
    settled = short | (above - below > _FLAT * tau)
    for _ in range(_STEPS):
        kept = torch.sigmoid(t - offsets[:k])
        dropped = torch.sigmoid(offsets[k:] - t)
        deficit, excess = kept.sum(0), dropped.sum(0)
        fall = (dropped - dropped * dropped).sum(0) / excess + (kept - kept * kept).sum(0) / deficit
        step = torch.log(excess / deficit).div_(fall).masked_fill_(settled, 0.0)
        t += step
        if float(step.abs().max()) < 1e-10:
            break
    return torch.where(short, _EVERYTHING, middle + tau * t)


def _sorted(columns: torch.Tensor) -> torch.Tensor:
    """Every column of ``[M, rows]`` in falling order, by exchanges of neighbours: quick for short columns."""
    ordered = list(columns.unbind())
    for turn in range(len(ordered)):
        for i in range(turn % 2, len(ordered) - 1, 2):
            first, second = ordered[i], ordered[i + 1]
            ordered[i], ordered[i + 1] = torch.maximum(first, second), torch.minimum(first, second)
    return torch.stack(ordered)
