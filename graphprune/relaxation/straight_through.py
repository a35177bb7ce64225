"""Hard masks whose gradient goes straight through to what they were made from."""

from __future__ import annotations

from typing import Any

import torch


def straight_through(x: torch.Tensor, masks: torch.Tensor, push: torch.Tensor | None = None) -> torch.Tensor:
    """``masks`` ``[n]``; in the backward pass ``x`` gets their gradient unchanged (Bengio et al. 2013).

    Where there is a ``push`` ``[n]``, the gradient is scaled to a root mean square of 1, and it is added: masks that
    cut a network off for some steps multiply gradients by thousands, which an optimiser's running mean of squares
    would take for the scale of all later steps.
    """
    found: torch.Tensor = _StraightThrough.apply(x, masks, push)  # type: ignore[no-untyped-call]
    return found


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, masks: torch.Tensor, push: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(push)
        return masks.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (push,) = ctx.saved_tensors
        if push is None:
            return upstream, None, None
        scale = upstream.square().mean().sqrt().clamp_min(torch.finfo(upstream.dtype).tiny)
        return upstream / scale + push, None, None
