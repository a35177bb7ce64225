"""Units and the module's tensors: what a unit's weights are, sum up to, and are multiplied by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from graphprune.search.units import Gate, Units

_TINY = 1e-30
"""Under the root, whose slope at 0 is infinite."""


class UnitTensors:
    """The parameters of a module, seen as the weights of units.

    ``tensors``: name of a parameter -> name of its ONNX tensor, by which weights are named here. Sums and norms
    are differentiable, ``[units]``, on the module's device.
    """

    def __init__(self, module: nn.Module, tensors: Mapping[str, str], units: Units) -> None:
        self.module, self.units, self.size = module, units, units.size
        self._names = {v: k for k, v in tensors.items()}
        held = {k for k, _ in module.named_parameters()}
        self._gates = [_Placed(g) for g in units.gates if self._names.get(g.value) in held]
        self._members = [_Placed(g) for g in units.members if self._names.get(g.value) in held]
        self._slots = torch.from_numpy(units.slots.astype(np.int64))
        self._derived = torch.from_numpy(np.asarray(units.derived, np.int64))
        self._counts = torch.zeros(units.entries)
        for member in self._members:
            self._counts.index_add_(0, member.index, torch.ones(member.index.numel()))
        self._cost = torch.from_numpy(np.asarray(units.cost, np.float64))

    def weights(self) -> dict[str, nn.Parameter]:
        """The weights that masks multiply."""
        return {name: self._parameter(name) for name in dict.fromkeys(g.gate.value for g in self._gates)}

    def sums(self, arrays: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum of ``arrays`` (of the weights' shapes) over the weights that every unit's mask multiplies."""
        found = self._gather(
            [(g, g.sum(arrays[g.gate.value])) for g in self._gates if g.gate.value in arrays]
        )
        for parent in self._derived[:, 1:].unbind(1):
            found = found.index_add(0, parent.to(found.device), found[self._derived[:, 0].to(found.device)])
        return found[self._slots.to(found.device)]

    def norms(self) -> torch.Tensor:
        """Root mean square of every unit's weights.

        A channel's is the mean over the slices of its weights, each relative to the mean of its slice.
        """
        if not self.units.relative:
            squares = self.sums({name: w.square() for name, w in self.weights().items()})
            return (squares / self._cost.to(squares) + _TINY).sqrt()
        parts = []
        for member in self._members:
            w = self._parameter(member.gate.value)
            squares = member.sum(w.square())
            rms = (squares * (squares.numel() / w.numel()) + _TINY).sqrt()
            parts.append((member, rms / rms.detach().mean()))
        found = self._gather(parts)
        found = found / self._counts.to(found).clamp_min(1.0)
        return self._spread(found)[self._slots.to(found.device)]

    @torch.no_grad()
    def multiply_(self, entries: torch.Tensor) -> None:
        """Multiply every weight by its mask entries (``[entries]``), in place."""
        for placed in self._gates:
            w = self._parameter(placed.gate.value)
            view = w if placed.gate.split is None else w.view(placed.gate.split)
            view.mul_(entries.to(w)[placed.index.to(w.device)].view(placed.gate.entries.shape))

    def _parameter(self, value: str) -> nn.Parameter:
        return self.module.get_parameter(self._names[value])

    def _gather(self, parts: Sequence[tuple[_Placed, torch.Tensor]]) -> torch.Tensor:
        if not parts:
            return torch.zeros(self.units.entries)
        total = parts[0][1].new_zeros(self.units.entries)
        for placed, numbers in parts:
            total = total.index_add(0, placed.index.to(total.device), numbers)
        return total

    def _spread(self, found: torch.Tensor) -> torch.Tensor:
        """Means over derived entries in the place of their parents, as ``Grids.spread``."""
        if not self._derived.numel():
            return found
        entry, *parents = (column.to(found.device) for column in self._derived.unbind(1))
        for parent in parents:
            total = torch.zeros_like(found).index_add(0, parent, found[entry])
            count = torch.zeros_like(found).index_add(0, parent, torch.ones_like(found[entry]))
            found = torch.where(count > 0, total / count.clamp_min(1.0), found)
        return found


class _Placed:
    """A gate with its entry numbers as a flat index."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.index = torch.from_numpy(gate.entries.reshape(-1).astype(np.int64))

    def sum(self, array: torch.Tensor) -> torch.Tensor:
        """``array`` summed where it meets the same mask entry, flat in the order of the index."""
        numbers = array if self.gate.split is None else array.reshape(self.gate.split)
        entries = self.gate.entries
        shape = (1,) * (numbers.ndim - entries.ndim) + entries.shape
        alike = [a for a in range(numbers.ndim) if shape[a] == 1]
        return (numbers.sum(dim=alike) if alike else numbers).reshape(-1)
