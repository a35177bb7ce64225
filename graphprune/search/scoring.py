"""What a method in one shot may ask of a model: gradients with respect to masks and weights, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from graphprune.search.masking import UnitMasking
from graphprune.search.units import Gate

if TYPE_CHECKING:
    from graphprune.search.search import Search

Sample = tuple[tuple[torch.Tensor, ...], torch.Tensor | None]
"""A batch of inputs, and its labels where there are any."""


class Scoring:
    """The model of a search, all masks at 1, in eval mode; ``samples`` are what the data gave.

    Scores are float64 ``[units]``. A unit holds the weights that its mask multiplies: a block, or the columns of
    a channel's consumers.
    """

    def __init__(self, search: Search, samples: Sequence[Sample]) -> None:
        assert isinstance(search.masking, UnitMasking)
        self.module: nn.Module = search.module
        self.masking = search.masking
        self.units = search.masking.units
        self.samples = samples
        self.imported = search.imported
        self.module.eval()

    # -- losses -------------------------------------------------------------------------------------

    def losses(self) -> Iterator[torch.Tensor]:
        """The loss of every batch: cross-entropy with the labels, or with the model's own answers where there are
        none; the mean square of outputs that are no scores of classes."""
        for inputs, labels in self.samples:
            outputs = self.module(*inputs)
            first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
            first = first.float()
            if first.ndim < 2 or first.shape[1] < 2:
                yield first.square().mean()
                continue
            answers = first.argmax(1) if labels is None or labels.shape != first.argmax(1).shape else labels
            yield F.cross_entropy(first, answers.long())

    # -- by masks -----------------------------------------------------------------------------------

    def mask_gradients(self) -> Iterator[np.ndarray]:
        """dL/ds at s = 1, batch by batch: the sum of ``w dL/dw`` over the weights of every unit."""
        with self.masks_at_one() as probe:
            for loss in self.losses():
                (gradient,) = torch.autograd.grad(loss, probe)
                yield gradient.double().cpu().numpy()

    def masks_at_one(self) -> _Probe:
        """Masks of 1 that gradients reach, while the block lasts."""
        return _Probe(self.masking)

    # -- by weights ---------------------------------------------------------------------------------

    def weights(self) -> dict[str, nn.Parameter]:
        """The weights that masks multiply, by the names of their ONNX tensors."""
        names = {v: k for k, v in self.imported.tensors.items()}
        gated = dict.fromkeys(g.value for g in self.units.gates if g.value in names)
        parameters = dict(self.module.named_parameters())
        return {value: parameters[names[value]] for value in gated if names[value] in parameters}

    def unit_sums(self, arrays: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Sum of ``arrays`` (ONNX name -> numbers of the weight's shape) over the weights of every unit."""
        total = np.zeros(self.units.entries)
        for gate in self.units.gates:
            if gate.value in arrays:
                np.add.at(total, gate.entries.reshape(-1), _gate_sums(gate, arrays[gate.value]))
        return np.asarray(total[self.units.slots])

    def kept_with(self, scores: np.ndarray) -> np.ndarray:
        """The hard decision by ``scores``: bool ``[units]``. Raises BudgetError."""
        return self.units.harden(scores).keep


class _Probe:
    """Sets masks to 1 for a while."""

    def __init__(self, masking: UnitMasking) -> None:
        self.masks = masking.masks

    def __enter__(self) -> torch.Tensor:
        return self.masks.probe()

    def __exit__(self, *_: object) -> None:
        self.masks.mode = "dense"


def _gate_sums(gate: Gate, array: torch.Tensor) -> np.ndarray:
    """``array`` summed where it meets the same mask entry, flat in the order of ``gate.entries``."""
    numbers = array.detach().double().cpu().numpy()
    if gate.split is not None:
        numbers = numbers.reshape(gate.split)
    entries = gate.entries.reshape((1,) * (numbers.ndim - gate.entries.ndim) + gate.entries.shape)
    alike = tuple(a for a in range(numbers.ndim) if entries.shape[a] == 1)
    return np.asarray(numbers.sum(axis=alike, keepdims=True).reshape(-1))
