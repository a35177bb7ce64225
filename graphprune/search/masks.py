"""The module that turns what units compete with into mask entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from graphprune.methods.registry import TrainedMethod
from graphprune.relaxation import Threshold
from graphprune.search.units import Curve, Section, Units

_NOTHING = 1e-10
"""Masks below this become 0. Beside masks of 1 they change no float32 result, but weights times masks of 1e-38,
and their gradients, are denormal numbers, over which processors take ten times as long."""


class Masks(nn.Module):
    """``forward()`` gives float32 ``[entries]``: 1 everywhere (``dense``), soft, or 0/1 (``hard``).

    ``temperature`` and ``progress`` (0: everything is kept, 1: the budget holds) are set before each step.
    ``logits`` ``[units]`` are trained, or hold scores; with ``norms`` the units compete with these instead.
    """

    base: torch.Tensor
    slots: torch.Tensor
    derived: torch.Tensor
    hard: torch.Tensor

    def __init__(
        self, units: Units, method: TrainedMethod, norms: Callable[[], torch.Tensor] | None = None
    ) -> None:
        super().__init__()
        self.units, self.method, self._norms = units, method, norms
        self.logits = nn.Parameter(torch.zeros(units.size), requires_grad=method.learns)
        self.register_buffer("base", torch.ones(units.entries), persistent=False)
        self.register_buffer("slots", torch.tensor(units.slots, dtype=torch.int64), persistent=False)
        self.register_buffer("derived", torch.tensor(units.derived, dtype=torch.int64), persistent=False)
        self.register_buffer("hard", torch.ones(units.size))
        self.mode = "dense"
        self.temperature = 1.0
        self.progress = 1.0
        self.held = False
        """The masks of the step before serve again, without a gradient."""
        self.floors = np.zeros(units.size, bool)
        self.last: torch.Tensor | None = None
        """Masks of the last forward, or the last that were chosen, float32 ``[units]``."""
        self._probe = torch.empty(0)
        self.set_sections(units.sections)

    def forward(self) -> torch.Tensor:
        """Mask entries, float32 ``[entries]``."""
        if self.mode == "dense":
            return self.base
        if self.mode == "probe":
            return self.expand(self._probe)
        if self.mode == "hard":
            return self.expand(self.hard)
        if self.held and self.last is not None:
            return self.expand(self.last)
        s = self.soft()
        self.last = s.detach()
        return self.expand(s)

    def competing(self) -> torch.Tensor:
        """What the units compete with, float32 ``[units]``."""
        return self.logits if self._norms is None else self._norms()

    def choose(self) -> None:
        """Choose masks now, for the steps in which they are held."""
        with torch.no_grad():
            self.last = self.soft()

    def soft(self) -> torch.Tensor:
        """Soft masks, float32 ``[units]``; every section meets its budget of this step."""
        s = self._relaxed()
        with torch.no_grad():  # logits have their gradient nevertheless
            return s.masked_fill_(s < _NOTHING, 0.0)

    def _relaxed(self) -> torch.Tensor:
        parts, x = self._open_parts(), self.competing()
        if self.method.weigh is not None:
            x = self.method.weigh(x, self._densities())
        if parts[0].everything:
            return self._relax(parts[0], x, None)
        s = torch.ones_like(x)
        for part in parts:  # sections with a curve come last and see the others' masks
            if part.open.size:
                chosen = self._relax(part, x.index_select(0, part.index), s)
                s = s.index_copy(0, part.index, chosen)
        return s

    def expand(self, s: torch.Tensor) -> torch.Tensor:
        """Unit masks ``[units]`` -> entries ``[entries]``."""
        full = self.base.index_copy(0, self.slots, s)
        if self.derived.numel():
            entry, first, second = self.derived.unbind(1)
            full = full.index_copy(0, entry, full.index_select(0, first) * full.index_select(0, second))
        return full

    def probe(self) -> torch.Tensor:
        """Let the next forwards use masks of 1 that gradients reach; returns them, ``[units]``."""
        self.mode = "probe"
        self._probe = torch.ones_like(self.hard).requires_grad_()
        return self._probe

    # -- what changes between steps ---------------------------------------------------------------

    def set_sections(self, sections: Sequence[Section]) -> None:
        """Budgets of the search; together they hold every unit once."""
        self.sections = list(sections)
        self.targets = [s.target for s in self.sections]
        self._memory = [Threshold() for _ in self.sections]
        self._parts: list[_Part] | None = None

    def set_floors(self, floors: np.ndarray) -> None:
        """Units that must stay: they are 1 and out of the competition."""
        if not np.array_equal(floors, self.floors):
            self.floors = floors
            self._parts = None

    def set_targets(self, targets: list[float]) -> None:
        """What every section keeps once ``progress`` is 1."""
        self.targets = targets

    def harden(self, keep: np.ndarray) -> None:
        """From now on masks are 0/1 (bool ``[units]``), and nothing about them is trained."""
        self.hard.copy_(torch.from_numpy(keep.astype(np.float32)))
        self.logits.requires_grad_(False)
        self.mode = "hard"
        self.last = None

    def thresholds(self) -> list[float | None]:
        """What every section's relaxation remembers: the solved threshold, a multiplier."""
        return [m.value for m in self._memory]

    def progress_state(self) -> dict[str, Any]:
        """What ``state_dict`` does not hold, as plain data."""
        return {
            "mode": self.mode,
            "temperature": self.temperature,
            "progress": self.progress,
            "held": self.held,
            "targets": list(self.targets),
            "floors": torch.from_numpy(self.floors.copy()),
            "memory": self.thresholds(),
            "last": self.last,
        }

    def load_progress(self, state: Mapping[str, Any]) -> None:
        """Take up what ``progress_state`` gave."""
        self.mode = state["mode"]
        self.temperature, self.progress = state["temperature"], state["progress"]
        self.held, self.targets = state["held"], list(state["targets"])
        self.set_floors(state["floors"].numpy())
        for memory, value in zip(self._memory, state["memory"], strict=True):
            memory.value = value
        self.last = state["last"]
        self.logits.requires_grad_(self.method.learns and self.mode != "hard")

    # -- inside -----------------------------------------------------------------------------------

    def _open_parts(self) -> list[_Part]:
        if self._parts is None:
            self._parts = [
                _Part(i, s, self.floors, self.units.size, self.logits.device)
                for i, s in enumerate(self.sections)
            ]
        return self._parts

    def _densities(self) -> torch.Tensor:
        """Share of the cost of every unit's layer that today's masks keep."""
        layers, cost = self.units.layers, self.units.cost
        kept = cost if self.last is None else cost * self.last.double().cpu().numpy()
        share = np.bincount(layers, kept) / np.maximum(np.bincount(layers, cost), 1e-12)
        return torch.from_numpy(share[layers]).to(self.logits)

    def _relax(self, part: _Part, x: torch.Tensor, s: torch.Tensor | None) -> torch.Tensor:
        total, target = part.section.total, self.targets[part.number]
        kept = total - self.progress * (total - target)
        memory = self._memory[part.number]
        if part.section.curve is not None:
            budget = _Remaining(part.section.curve, part.open, self._others(s), kept)
            assert self.method.relax_curve is not None
            return self.method.relax_curve(x, budget, self.temperature, memory)
        linear = min(max(kept - part.floor_cost, 0.0), part.free_cost)
        assert self.method.relax is not None
        return self.method.relax(x, linear, self.temperature, part.cost, memory)

    def _others(self, s: torch.Tensor | None) -> np.ndarray:
        if s is None:
            return np.ones(self.units.size)
        found: np.ndarray = s.detach().cpu().double().numpy()
        return found


class _Part:
    """A section without its floors: what competes for what is left of the budget."""

    def __init__(self, number: int, section: Section, floors: np.ndarray, size: int, device: Any) -> None:
        self.number, self.section = number, section
        floored = floors[section.units]
        self.open = section.units[~floored]
        cost = section.cost[~floored]
        self.floor_cost = float(section.cost[floored].sum())
        self.free_cost = float(cost.sum())
        self.everything = bool(self.open.size == size and (self.open == np.arange(size)).all())
        self.index = torch.tensor(self.open, dtype=torch.int64, device=device)
        self.cost = None if (cost == 1).all() else torch.tensor(cost, dtype=torch.float64, device=device)


class _Remaining:
    """A curve as a function of the units that compete; the others are as they are.

    They may cost more alone than ``limit`` (floors, near the most that can go), or leave so little that all
    of these fit (shares of their own that are not linear in the curve): the nearest end is the limit then.
    """

    def __init__(self, curve: Curve, units: np.ndarray, others: np.ndarray, limit: float) -> None:
        self.curve, self.units, self.s = curve, units, others.copy()
        least, most = (self.value_and_gradient(np.full(units.size, end))[0] for end in (0.0, 1.0))
        self.limit = min(max(limit, least), most)

    def value_and_gradient(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        self.s[self.units] = s
        value, gradient = self.curve.value_and_gradient(self.s)
        return value, gradient[self.units]
