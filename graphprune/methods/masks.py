"""Relaxations that several methods share; torch is imported when the first mask is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from graphprune.relaxation import MonotoneBudget, Threshold


def at_once(
    x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, memory: Threshold
) -> torch.Tensor:
    """``relaxation.hard_masks``."""
    from graphprune.relaxation import hard_masks

    return hard_masks(x, budget, tau, cost, memory)


def at_once_curve(x: torch.Tensor, budget: MonotoneBudget, tau: float, memory: Threshold) -> torch.Tensor:
    """``relaxation.hard_masks_curve``."""
    from graphprune.relaxation import hard_masks_curve

    return hard_masks_curve(x, budget, tau, memory)


def at_once_rows(x: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    """``relaxation.hard_rows``."""
    from graphprune.relaxation import hard_rows

    return hard_rows(x, k, tau)
