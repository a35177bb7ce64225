"""Structure ``nm`` while it is trained: the weights of every group compete."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from graphprune.methods.registry import TrainedMethod
from graphprune.rows import RowWeight


@dataclass
class RowState:
    """What all weights share: ``mode`` is dense, soft, probe or hard; ``temperature`` in units of ``std`` or raw;
    ``now`` weights of every group stay in this step, ``keep`` at the end."""

    method: TrainedMethod
    keep: int
    of: int
    relative: bool
    mode: str = "dense"
    temperature: float = 1.0
    now: int = 0
    held: bool = False


class RowMask(nn.Module):
    """weight -> masked weight; for SMART ``w * f_tau(|w|)`` inside every group (methods.md A5, algorithm 2).

    ``logits`` (the weight's shape) are trained, or hold scores; methods whose weights compete by themselves have
    none.
    """

    hard: torch.Tensor

    def __init__(self, weight: RowWeight, state: RowState) -> None:
        super().__init__()
        self.axis, self.state = weight.axis, state
        self.register_buffer("hard", torch.ones(weight.weight.shape, dtype=torch.bool))
        self.logits: nn.Parameter | None = None
        source = state.method.source_of_rows or state.method.source
        if source != "weights":
            zeros = torch.zeros(weight.weight.shape)
            self.logits = nn.Parameter(zeros, requires_grad=source == "logits")
        self.last: torch.Tensor | None = None
        """Masks of the last forward, or the last that were chosen, of the weight's shape."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Same shape as ``weight``."""
        if self.state.mode == "dense":
            return weight
        if self.state.mode == "hard":
            return weight * self.hard.to(weight.dtype)
        if self.state.held and self.last is not None:
            return weight * self.last
        s = self.soft(weight)
        self.last = s.detach()
        return weight * s

    def soft(self, weight: torch.Tensor) -> torch.Tensor:
        """Masks of the weight's shape, of this step."""
        x = self.competing(weight)
        if self.state.relative and self.logits is None:
            x = x / weight.detach().abs().std().clamp_min(1e-12)
        relax = self.state.method.relax_rows
        assert relax is not None
        return self.back(relax(self.rows(x), self.state.now, self.state.temperature), weight)

    def competing(self, weight: torch.Tensor) -> torch.Tensor:
        """What the weights compete with, of the weight's shape."""
        return weight.abs() if self.logits is None else self.logits

    @torch.no_grad()
    def choose(self, weight: torch.Tensor) -> None:
        """Choose masks now, for the steps in which they are held."""
        self.last = self.soft(weight)

    @torch.no_grad()
    def harden(self, weight: torch.Tensor, *, held_first: bool = False) -> None:
        """Fix the N best of every group, the earlier of equals; ``held_first``: those that the masks of before keep
        come first."""
        x = self.competing(weight).detach()
        if held_first and self.last is not None:
            x = x - x.min() + (x.max() - x.min() + 1) * self.last
        order = torch.argsort(self.rows(x), dim=1, descending=True, stable=True)[:, : self.state.keep]
        mask = torch.zeros_like(self.rows(x)).scatter_(1, order, 1.0)
        self.hard.copy_(self.back(mask, weight).bool())
        if self.logits is not None:
            self.logits.requires_grad_(False)

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
