"""Masks over units (coupled channels, weight blocks), gated in the module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from graphprune.hard_topk import hard_topk
from graphprune.methods.registry import TrainedMethod
from graphprune.relaxation import undecided
from graphprune.search.gating import insert_gates
from graphprune.search.masking import gradient_of
from graphprune.search.masks import Masks
from graphprune.search.unit_tensors import UnitTensors
from graphprune.search.units import Hard, Units, layered

_CLEAR = 20.0
"""Logits this many temperatures from the threshold are decided (sigmoid(-20) = 2e-9)."""


class UnitMasking:
    """One mask for each unit; ``tensors``: name of the module's parameter -> name of its ONNX tensor."""

    def __init__(
        self,
        module: torch.fx.GraphModule,
        nodes: Mapping[str, str],
        tensors: Mapping[str, str],
        units: Units,
        method: TrainedMethod,
    ) -> None:
        self.units, self.method = units, method
        self.tensors = UnitTensors(module, tensors, units)
        self.masks = Masks(units, method, self.tensors.norms if method.source == "weights" else None)
        self.hard: Hard | None = None
        self._shares: np.ndarray | None = None
        """The first decision of a layered method, which fixes the share of every layer: bool ``[units]``."""
        insert_gates(module, nodes, units.gates, self.masks, units.statistics)

    def parameters(self) -> list[nn.Parameter]:
        """The logits, if the method trains them."""
        return [self.masks.logits] if self.method.learns else []

    @torch.no_grad()
    def start(self, scores: np.ndarray) -> None:
        """What the units compete with from now on (float ``[units]``), where the method does not say itself."""
        self.masks.logits.copy_(torch.from_numpy(scores.astype(np.float32)))

    def soften(self) -> None:
        """Begin the search; methods with a share for every layer fix it here."""
        self.masks.mode = "soft"
        if self.method.layered:
            self._fix_shares(self.units.harden(self._competing()).keep)
        self.refresh()

    def advance(self, temperature: float, progress: float, held: bool) -> None:
        """Set temperature, budget, and whether the last masks serve once more."""
        self.masks.temperature, self.masks.progress, self.masks.held = temperature, progress, held

    def choose(self) -> None:
        """Choose masks now, for the steps in which they are held."""
        self.refresh()
        self.masks.choose()

    def held_masks(self) -> np.ndarray | None:
        """The masks that were chosen last, float ``[units]``; None before the first."""
        return None if self.masks.last is None else np.asarray(self.masks.last.double().cpu().numpy())

    @torch.no_grad()
    def observe(self, decay: float) -> None:
        """Running means of ``|w dL/dw|``, summed over every unit; units that are gone have none."""
        products = {name: (w * gradient_of(w, name)).abs() for name, w in self.tensors.weights().items()}
        self.masks.logits.lerp_(self.tensors.sums(products), 1 - decay)
        if self.masks.last is not None:
            self.masks.logits.mul_(self.masks.last)

    def restart(self) -> None:
        """Weights under masks of 0 become 0."""
        if self.masks.last is not None:
            self.tensors.multiply_(self.masks.expand(self.masks.last))

    @torch.no_grad()
    def clip(self, low: float, high: float) -> None:
        """Bring logits back into a box."""
        self.masks.logits.clamp_(low, high)

    def refresh(self) -> None:
        """Units that must stay by today's order leave the competition."""
        self.masks.set_floors(self.units.floors(self._competing()))

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
        for section in self.masks.sections:
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
        return undecided(self._today())

    @torch.no_grad()
    def kept(self) -> float:
        """Share of the cost that stays, over all sections."""
        s = self._today().double().cpu().numpy()
        total = sum(x.total for x in self.masks.sections)
        held = sum(
            float(x.cost @ s[x.units]) if x.curve is None else x.curve.value_and_gradient(s)[0]
            for x in self.masks.sections
        )
        return held / max(total, 1e-12)

    def harden(self, *, held_first: bool = False) -> Hard:
        """Decide by what the units compete with; ``held_first``: those that the masks of before keep come first.

        Raises BudgetError.
        """
        scores = self._competing()
        first = self.held_masks() if held_first else None
        if self.method.layered:
            first = self._best_of_layers(scores)
        if first is not None:
            scores = scores + (np.ptp(scores) + 1) * first
        self.start(scores)  # a resumed run decides by the same
        self.hard = self.units.harden(self._logits())
        self.masks.harden(self.hard.keep)
        return self.hard

    def state(self) -> dict[str, Any]:
        """Mode, temperature, budget, floors and thresholds."""
        shares = None if self._shares is None else torch.from_numpy(self._shares)
        return {**self.masks.progress_state(), "shares": shares}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave; a hard decision is made again from the same logits."""
        if state["shares"] is not None:
            self._fix_shares(state["shares"].numpy())
        self.masks.load_progress(state)
        if self.masks.mode == "hard":
            self.hard = self.units.harden(self._logits())

    def _fix_shares(self, keep: np.ndarray) -> None:
        self._shares = keep
        self.masks.set_sections(layered(self.units, keep))

    def _best_of_layers(self, scores: np.ndarray) -> np.ndarray:
        """1 for the best units of every section within its budget, float ``[units]``."""
        found = np.zeros(self.units.size)
        for section in self.masks.sections:
            found[section.units] = hard_topk(scores[section.units], section.target, section.cost)
        return found

    def _today(self) -> torch.Tensor:
        masks = self.masks
        if masks.mode == "hard":
            return masks.hard
        if masks.mode != "soft":
            return torch.ones_like(masks.hard)
        return masks.last if masks.held and masks.last is not None else masks.soft()

    @torch.no_grad()
    def _competing(self) -> np.ndarray:
        found: np.ndarray = self.masks.competing().double().cpu().numpy()
        return found

    def _logits(self) -> np.ndarray:
        found: np.ndarray = self.masks.logits.detach().double().cpu().numpy()
        return found
