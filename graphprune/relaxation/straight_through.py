"""Hard masks whose gradient goes straight through to what they were made from."""

from __future__ import annotations

from typing import Any

import torch


def straight_through(x: torch.Tensor, masks: torch.Tensor, push: torch.Tensor | None = None) -> torch.Tensor:
    """``masks`` ``[n]``; in the backward pass ``x`` gets their gradient unchanged (Bengio et al. 2013).

    ``push`` ``[n]`` is added to it, in units of the gradient's root mean square.
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
        return upstream + push * upstream.square().mean().sqrt(), None, None
