"""How far soft masks are from a decision."""

from __future__ import annotations

import torch


def undecided(s: torch.Tensor) -> float:
    """Share of masks strictly between 0.05 and 0.95; 0 where there is none."""
    if s.numel() == 0:
        return 0.0
    return float(((s > 0.05) & (s < 0.95)).sum()) / s.numel()
