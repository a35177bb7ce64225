"""Masks over the weights of N:M groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from graphprune.methods.registry import TrainedMethod
from graphprune.relaxation import undecided
from graphprune.rows import RowWeight
from graphprune.search.gating import wrap_values
from graphprune.search.masking import gradient_of
from graphprune.search.rows import RowMask, RowState
from graphprune.search.units import Hard


class RowTensors:
    """Weights whose single numbers are units, one after the other; ``names``: ONNX tensor -> parameter."""

    def __init__(self, module: nn.Module, names: Mapping[str, str]) -> None:
        self._module, self._names = module, dict(names)
        self.size = sum(w.numel() for w in self.weights().values())

    def weights(self) -> dict[str, nn.Parameter]:
        """The weights that masks multiply."""
        return {value: self._module.get_parameter(name) for value, name in self._names.items()}

    def sums(self, arrays: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``arrays`` (of the weights' shapes) as one, ``[size]``."""
        return torch.cat([arrays[name].reshape(-1) for name in self._names])

    def parts(self, flat: np.ndarray) -> list[np.ndarray]:
        """``flat`` ``[size]`` in the weights' shapes."""
        shapes = [tuple(w.shape) for w in self.weights().values()]
        ends = np.cumsum([math.prod(s) for s in shapes])
        return [part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


class RowMasking:
    """Every weight of every group has a mask."""

    def __init__(
        self,
        module: torch.fx.GraphModule,
        nodes: Mapping[str, str],
        weights: Sequence[RowWeight],
        method: TrainedMethod,
        *,
        relative: bool,
    ) -> None:
        """``relative``: temperatures are in standard deviations of each weight."""
        self.method = method
        self.shared = RowState(method, weights[0].keep, weights[0].of, relative, now=weights[0].keep)
        self.rows = {w.name: RowMask(w, self.shared) for w in weights}
        targets = {n.name: str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
        names = {w.name: targets.get(nodes.get(w.name, ""), "") for w in weights}
        self.tensors = RowTensors(module, names)
        self.hard: Hard | None = None
        wrap_values(module, nodes, self.rows)

    def parameters(self) -> list[nn.Parameter]:
        """The logits, if the method trains them; algorithm 2 has none."""
        if (self.method.source_of_rows or self.method.source) != "logits":
            return []
        return [row.logits for row in self.rows.values() if row.logits is not None]

    @torch.no_grad()
    def start(self, scores: np.ndarray) -> None:
        """What the weights compete with from now on (float ``[size]``), where the method does not say itself."""
        for row, part in zip(self.rows.values(), self.tensors.parts(scores), strict=True):
            if row.logits is not None:
                row.logits.copy_(torch.from_numpy(part.astype(np.float32)))

    def soften(self) -> None:
        """Begin the search."""
        self.shared.mode = "soft"

    def advance(self, temperature: float, progress: float, held: bool) -> None:
        """Set the temperature, and how many of every group stay."""
        shared = self.shared
        shared.temperature, shared.held = temperature, held
        gone = math.floor(progress * (shared.of - shared.keep) + 1e-9) if self.method.gradual_rows else None
        shared.now = shared.keep if gone is None else shared.of - gone

    def choose(self) -> None:
        """Choose masks now, for the steps in which they are held."""
        for name, row in self.rows.items():
            row.choose(self._weight(name))

    def held_masks(self) -> np.ndarray | None:
        """The masks that were chosen last, float ``[size]``; None before the first."""
        last = {name: row.last for name, row in self.rows.items() if row.last is not None}
        return np.asarray(self.tensors.sums(last).double().cpu().numpy()) if last else None

    @torch.no_grad()
    def observe(self, decay: float) -> None:
        """Running means of ``|w dL/dw|``; weights that are gone have none."""
        for name, row in self.rows.items():
            w = self._weight(name)
            assert row.logits is not None
            row.logits.lerp_((w * gradient_of(w, name)).abs(), 1 - decay)
            if row.last is not None:
                row.logits.mul_(row.last)

    @torch.no_grad()
    def restart(self) -> None:
        """Weights under masks of 0 become 0."""
        for name, row in self.rows.items():
            if row.last is not None:
                self._weight(name).mul_(row.last)

    @torch.no_grad()
    def clip(self, low: float, high: float) -> None:
        """Bring logits back into a box."""
        for parameter in self.parameters():
            parameter.clamp_(low, high)

    def refresh(self) -> None:
        """There are no floors: N of every M stay."""

    def snap(self) -> None:
        """Every row's budget is a whole number already."""

    @torch.no_grad()
    def undecided(self) -> float:
        """Share of soft masks between 0.05 and 0.95."""
        if self.shared.mode != "soft":
            return 0.0
        return undecided(torch.cat([s.reshape(-1) for s in self._today()]))

    @torch.no_grad()
    def kept(self) -> float:
        """Share of the weights in groups that the masks of this step keep."""
        if self.shared.mode == "dense":
            return 1.0
        if self.shared.mode == "hard":
            return 1 - self._hard().achieved
        return float(torch.cat([s.reshape(-1) for s in self._today()]).mean())

    def harden(self, *, held_first: bool = False) -> Hard:
        """Keep the N best of every group, ``held_first`` those that the masks of before keep."""
        for name, row in self.rows.items():
            row.harden(self._weight(name), held_first=held_first)
        self.shared.mode = "hard"
        return self._hard()

    def state(self) -> dict[str, Any]:
        """Mode, temperature and held masks; hard masks are in the module's state_dict."""
        s = self.shared
        last = [row.last for row in self.rows.values()]
        return {"mode": s.mode, "temperature": s.temperature, "now": s.now, "held": s.held, "last": last}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave."""
        s = self.shared
        s.mode, s.temperature, s.now, s.held = (state[k] for k in ("mode", "temperature", "now", "held"))
        for row, last in zip(self.rows.values(), state["last"], strict=True):
            row.last = last
        if s.mode == "hard":
            self._hard()

    def _today(self) -> list[torch.Tensor]:
        held = self.shared.held
        return [
            row.last if held and row.last is not None else row.soft(self._weight(name))
            for name, row in self.rows.items()
        ]

    def _hard(self) -> Hard:
        keep = {name: row.hard.cpu().numpy() for name, row in self.rows.items()}
        flat = np.concatenate([m.reshape(-1) for m in keep.values()])
        self.hard = Hard(flat, 1 - float(flat.mean()), keep)
        return self.hard

    def _weight(self, name: str) -> nn.Parameter:
        return self.tensors.weights()[name]
