"""Soft masks over a run: what is common to logits over units and to N:M rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from graphprune.methods.registry import TrainedMethod
from graphprune.relaxation import undecided
from graphprune.rows import RowWeight
from graphprune.search.gating import insert_gates, wrap_values
from graphprune.search.masks import Masks
from graphprune.search.rows import RowMask, RowState
from graphprune.search.units import Hard, Units

_CLEAR = 20.0
"""Logits this many temperatures from the threshold are decided (sigmoid(-20) = 2e-9)."""


class Masking(Protocol):
    """Masks in a module: dense at first, soft during the search, hard from its end."""

    hard: Hard | None

    def parameters(self) -> list[nn.Parameter]:
        """Mask logits, if the structure has any."""

    def soften(self) -> None:
        """Begin the search."""

    def advance(self, temperature: float, progress: float, held: bool) -> None:
        """Set what the next forward uses; ``progress`` goes from 0 (all kept) to 1 (the budget holds)."""

    def refresh(self) -> None:
        """Find the floors again by today's logits."""

    def snap(self) -> None:
        """Make the soft budget that of today's hard decision."""

    def undecided(self) -> float:
        """Share of masks between 0.05 and 0.95."""

    def kept(self) -> float:
        """Share of the cost that the masks of this step keep."""

    def harden(self) -> Hard:
        """Fix the decision."""

    def state(self) -> dict[str, Any]:
        """What the module's state_dict does not hold."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave."""


class UnitMasking:
    """Logits over units, gated in the module."""

    def __init__(
        self,
        module: torch.fx.GraphModule,
        nodes: Mapping[str, str],
        units: Units,
        logits: np.ndarray,
        method: TrainedMethod,
    ) -> None:
        self.units = units
        self.masks = Masks(units, logits, method)
        self.hard: Hard | None = None
        insert_gates(module, nodes, units.gates, self.masks, units.statistics)

    def parameters(self) -> list[nn.Parameter]:
        """The logits, if the method trains them."""
        return [self.masks.logits] if self.masks.method.learns else []

    def soften(self) -> None:
        """Begin the search."""
        self.masks.mode = "soft"
        self.refresh()

    def advance(self, temperature: float, progress: float, held: bool) -> None:
        """Set temperature, budget, and whether the last masks serve once more."""
        self.masks.temperature, self.masks.progress, self.masks.held = temperature, progress, held

    def refresh(self) -> None:
        """Units that must stay by today's logits leave the competition."""
        self.masks.set_floors(self.units.floors(self._logits()))

    @torch.no_grad()
    def snap(self) -> None:
        """Set the budget to the cost of the hard decision (methods.md A11.5).

        Whole units then meet it, so that none is left half kept. A decision that is aligned or balanced
        need not be a prefix of the ranking: units that it moves across the threshold are reflected there.
        """
        logits = self._logits()
        keep = self.units.harden(logits).keep
        targets = []
        moved = logits.copy()
        clear = _CLEAR * self.masks.temperature
        for section in self.units.sections:
            kept = keep[section.units]
            if section.curve is None:
                targets.append(float(section.cost[kept].sum()))
            else:
                targets.append(section.curve.value_and_gradient(keep.astype(np.float64))[0])
            own = logits[section.units]
            if kept.all() or not kept.any():
                continue
            order = np.sort(own)[::-1]
            cut = (order[kept.sum() - 1] + order[kept.sum()]) / 2
            distance = np.maximum(np.abs(own - cut), clear)
            moved[section.units] = np.where(kept, cut + distance, cut - distance)
        self.masks.set_targets(targets)
        self.masks.logits.copy_(torch.from_numpy(moved.astype(np.float32)))
        self.refresh()

    @torch.no_grad()
    def undecided(self) -> float:
        """Share of soft masks between 0.05 and 0.95."""
        return undecided(self._entries())

    @torch.no_grad()
    def kept(self) -> float:
        """Share of the cost that stays, over all sections."""
        s = self._entries().double().cpu().numpy()
        total = sum(x.total for x in self.units.sections)
        held = sum(
            float(x.cost @ s[x.units]) if x.curve is None else x.curve.value_and_gradient(s)[0]
            for x in self.units.sections
        )
        return held / max(total, 1e-12)

    def harden(self) -> Hard:
        """Decide by the logits. Raises BudgetError."""
        self.hard = self.units.harden(self._logits())
        self.masks.harden(self.hard.keep)
        return self.hard

    def state(self) -> dict[str, Any]:
        """Mode, temperature, budget, floors and thresholds."""
        return self.masks.progress_state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave; a hard decision is made again from the same logits."""
        self.masks.load_progress(state)
        if self.masks.mode == "hard":
            self.hard = self.units.harden(self._logits())

    def _entries(self) -> torch.Tensor:
        if self.masks.mode == "soft":
            return self.masks.soft()
        return self.masks.hard if self.masks.mode == "hard" else torch.ones_like(self.masks.hard)

    def _logits(self) -> np.ndarray:
        found: np.ndarray = self.masks.logits.detach().double().cpu().numpy()
        return found


class RowMasking:
    """N:M rows: no logits, the weights compete."""

    def __init__(
        self,
        module: torch.fx.GraphModule,
        nodes: Mapping[str, str],
        weights: Sequence[RowWeight],
        state: RowState,
    ) -> None:
        self.shared = state
        self.rows = {w.name: RowMask(w, state) for w in weights}
        self._weights = {w.name: nodes.get(w.name, "") for w in weights}
        self._targets = {n.name: str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
        self.module = module
        self.hard: Hard | None = None
        wrap_values(module, nodes, self.rows)

    def parameters(self) -> list[nn.Parameter]:
        """None: algorithm 2 has no mask parameters."""
        return []

    def soften(self) -> None:
        """Begin the search."""
        self.shared.mode = "soft"

    def advance(self, temperature: float, progress: float, held: bool) -> None:
        """Set the temperature; N:M fixes the budget."""
        self.shared.temperature = temperature

    def refresh(self) -> None:
        """There are no floors: N of every M stay."""

    def snap(self) -> None:
        """Every row's budget is a whole number already."""

    @torch.no_grad()
    def undecided(self) -> float:
        """Share of soft masks between 0.05 and 0.95."""
        if self.shared.mode != "soft":
            return 0.0
        parts = [row.soft(self._weight(name)).reshape(-1) for name, row in self.rows.items()]
        return undecided(torch.cat(parts))

    def kept(self) -> float:
        """N / M once the search has begun."""
        return 1.0 if self.shared.mode == "dense" else self.shared.keep / self.shared.of

    def harden(self) -> Hard:
        """Keep the N largest of every group."""
        for name, row in self.rows.items():
            row.harden(self._weight(name))
        self.shared.mode = "hard"
        return self._hard()

    def state(self) -> dict[str, Any]:
        """Mode and temperature; hard masks are in the module's state_dict."""
        return {"mode": self.shared.mode, "temperature": self.shared.temperature}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave."""
        self.shared.mode, self.shared.temperature = state["mode"], state["temperature"]
        if self.shared.mode == "hard":
            self._hard()

    def _hard(self) -> Hard:
        keep = {name: row.hard.cpu().numpy() for name, row in self.rows.items()}
        flat = np.concatenate([m.reshape(-1) for m in keep.values()])
        self.hard = Hard(flat, 1 - float(flat.mean()), keep)
        return self.hard

    def _weight(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self.module.get_parameter(self._targets[self._weights[name]])
        return found
