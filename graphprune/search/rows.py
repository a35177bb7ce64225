"""Structure ``nm`` while it is trained: the weights themselves compete in every group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from graphprune.methods.registry import TrainedMethod
from graphprune.rows import RowWeight


@dataclass
class RowState:
    """What all weights share: ``mode`` is dense, soft or hard; ``temperature`` in units of ``std`` or raw."""

    method: TrainedMethod
    keep: int
    of: int
    relative: bool
    mode: str = "dense"
    temperature: float = 1.0


class RowMask(nn.Module):
    """weight -> masked weight (methods.md A5, algorithm 2): ``w * f_tau(|w|)`` inside every group."""

    hard: torch.Tensor

    def __init__(self, weight: RowWeight, state: RowState) -> None:
        super().__init__()
        self.axis, self.state = weight.axis, state
        self.register_buffer("hard", torch.ones(weight.weight.shape, dtype=torch.bool))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Same shape as ``weight``."""
        if self.state.mode == "dense":
            return weight
        if self.state.mode == "hard":
            return weight * self.hard.to(weight.dtype)
        return weight * self.soft(weight)

    def soft(self, weight: torch.Tensor) -> torch.Tensor:
        """Soft masks of the weight's shape; every group of M sums to N."""
        rows = self.rows(weight.abs())
        if self.state.relative:
            rows = rows / weight.detach().abs().std().clamp_min(1e-12)
        assert self.state.method.relax_rows is not None
        return self.back(self.state.method.relax_rows(rows, self.state.keep, self.state.temperature), weight)

    def harden(self, weight: torch.Tensor) -> None:
        """Fix the N largest of every group; the earlier of equals stays."""
        rows = self.rows(weight.detach().abs())
        order = torch.argsort(rows, dim=1, descending=True, stable=True)[:, : self.state.keep]
        mask = torch.zeros_like(rows).scatter_(1, order, 1.0)
        self.hard.copy_(self.back(mask, weight).bool())

    def rows(self, scores: torch.Tensor) -> torch.Tensor:
        """``[rows, M]``: M consecutive weights each; what is missing at the end is -inf."""
        moved = scores.movedim(self.axis, -1)
        padded = F.pad(moved, (0, -moved.shape[-1] % self.state.of), value=float("-inf"))
        return padded.reshape(-1, self.state.of)

    def back(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The way back of ``rows``."""
        moved = weight.movedim(self.axis, -1).shape
        whole = moved[-1] + (-moved[-1] % self.state.of)
        return rows.reshape(*moved[:-1], whole)[..., : moved[-1]].movedim(-1, self.axis)
