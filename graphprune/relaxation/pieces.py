"""Soft masks of one vector of scores, worked through in pieces that stay in a processor's cache.

Float32 scores near 1 lie .006 apart in temperatures of 1e-5, and float32 sums over millions of masks
drift: what is returned is subtracted and summed in float64. Float32 serves to come near, and for the
gradients of long float32 vectors. No copy of a vector in another type is ever made.
"""

from __future__ import annotations

import math

import numpy as np
import torch

_PIECE = 2**18
"""Bytes of a piece on a CPU; elsewhere a vector is one piece."""

_LONG = 2**16
"""Scores from which float32 passes pay: below, the calls cost more than the arithmetic."""

_FAR = 80.0
"""Masks this many temperatures from the threshold are 0 or 1 in float32. Beyond, exp is slow: denormals."""


def is_long(x: torch.Tensor) -> bool:
    """Whether float32 passes over the scores pay: they are float32, and many."""
    return x.dtype == torch.float32 and x.numel() >= _LONG


class Pieces:
    """s = sigmoid((x - theta) / tau) at any theta, computed in ``dtype``.

    ``x`` [n] is float32 or float64; ``cost`` [n] is None where every unit costs 1.
    """

    def __init__(self, x: torch.Tensor, tau: float, cost: torch.Tensor | None, dtype: torch.dtype) -> None:
        n = x.numel()
        self._x, self._tau = x, tau
        self._cost = None if cost is None else cost.to(x.device)
        size = max(min(n, _PIECE // dtype.itemsize) if x.device.type == "cpu" else n, 1)
        self._slices = [slice(i, min(i + size, n)) for i in range(0, n, size)]
        self._first = torch.empty(size, dtype=dtype, device=x.device)
        self._second = torch.empty_like(self._first)
        self._single = dtype == torch.float32

    def sums(self, theta: float, out: torch.Tensor | None = None) -> tuple[float, float]:
        """sum(c s) and sum(c s (1 - s)); s is written to ``out`` [n]."""
        total = squares = 0.0
        for part in self._slices:
            s, weighted = self._scratch(part)
            self._distance(part, theta, s).mul_(1 / self._tau)
            if self._single:
                s.clamp_(-_FAR, _FAR)
            s.sigmoid_()
            if out is not None:
                out[part].copy_(s)
            if self._cost is None:
                weighted = s
            else:
                torch.mul(_read(self._cost[part], weighted), s, out=weighted)
            total += float(weighted.sum())
            squares += float(torch.dot(weighted, s))
        return total, total - squares

    def gradient(self, theta: float, upstream: torch.Tensor) -> torch.Tensor:
        """``upstream`` [n] times the Jacobian at ``theta`` (proposition 2.2, with costs):

            grad_j = s'_j / tau (v_j - c_j mean),   mean = sum(v s') / sum(c s'),   s' = s (1 - s)

        0 where every s' underflows: such a mask is frozen.
        """
        grad = torch.empty(self._x.shape, dtype=self._x.dtype, device=self._x.device)
        if math.isinf(theta):
            return grad.zero_()
        upstream = upstream.contiguous()  # float32 sums over an expanded scalar are inexact
        moved = spent = 0.0
        for part in self._slices:
            slope, other = self._scratch(part)
            self._slopes(part, theta, slope)
            grad[part].copy_(slope)
            moved += float(torch.dot(_read(upstream[part], other), slope))
            if self._cost is None:
                spent += float(slope.sum())
            else:
                spent += float(torch.dot(_read(self._cost[part], other), slope))
        if spent == 0:
            return grad.zero_()
        mean = moved / spent
        for part in self._slices:
            change, other = self._scratch(part)
            v = _read(upstream[part], change)
            if self._cost is None:
                torch.sub(v, mean, out=change)
            else:
                torch.sub(v, _read(self._cost[part], other), alpha=mean, out=change)
            grad[part].mul_(change.mul_(1 / self._tau))
        return grad

    def _slopes(self, part: slice, theta: float, out: torch.Tensor) -> None:
        """s' from the smaller of s and 1 - s: a mask near 1 has few digits of 1 - s left."""
        self._distance(part, theta, out).abs_().mul_(-1 / self._tau)
        if self._single:
            out.clamp_(min=-_FAR)
        out.sigmoid_()
        torch.addcmul(out, out, out, value=-1, out=out)
        if self._single:
            torch.threshold_(out, 2 * math.exp(-_FAR), 0.0)

    def _distance(self, part: slice, theta: float, out: torch.Tensor) -> torch.Tensor:
        """x - theta, to the precision of ``out``, which it returns."""
        x = _read(self._x[part], out)
        if not self._single:
            return torch.sub(x, theta, out=out)
        coarse = float(np.float32(theta))  # next to the threshold x - coarse is exact
        return torch.sub(x, coarse, out=out).sub_(theta - coarse)

    def _scratch(self, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        size = part.stop - part.start
        return self._first[:size], self._second[:size]


def _read(values: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """``values`` in the type of ``buffer``: themselves, or copied into it."""
    return values if values.dtype == buffer.dtype else buffer.copy_(values)
