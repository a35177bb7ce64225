"""What a method in one shot may ask of a model: gradients with respect to masks and weights, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from graphprune.criteria import Criterion
from graphprune.search import answers
from graphprune.search.initial import Inputs
from graphprune.search.masks import Masks
from graphprune.search.unit_masking import UnitMasking
from graphprune.search.units import Units

if TYPE_CHECKING:
    from graphprune.search.search import Search

Sample = tuple[Inputs, torch.Tensor | None]
"""A batch of inputs, and its labels where there are any."""


class Scoring:
    """The model of a search under the masks chosen so far (all 1 at first), in eval mode.

    ``samples`` are what the data gave. Scores are float64 ``[size]``. A unit holds the weights that its mask
    multiplies: a block, the columns of a channel's consumers, or a single weight of an N:M group.
    """

    def __init__(self, search: Search, samples: Sequence[Sample]) -> None:
        self.search, self.samples = search, samples
        self.module: nn.Module = search.module
        self.imported = search.imported
        self.masking = search.masking
        self.curves: dict[str, list[float]] = {}
        """What the method leaves to be plotted, by name."""
        self.module.eval()

    @property
    def units(self) -> Units:
        """Of a structure whose units have masks of their own (channel, block)."""
        assert isinstance(self.masking, UnitMasking)
        return self.masking.units

    @property
    def size(self) -> int:
        """How many units there are."""
        return self.masking.tensors.size

    # -- losses -------------------------------------------------------------------------------------

    def losses(self) -> Iterator[torch.Tensor]:
        """The loss of every batch, as ``loss`` has it; the mean square of outputs that are no scores of classes."""
        for inputs, labels in self.samples:
            yield self.loss(inputs, labels)

    def loss(
        self, inputs: Inputs, labels: torch.Tensor | None, wanted: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the training minimises, where it needs no teacher; else how far the first output is from ``wanted``.

        Without that, cross-entropy with the labels, or with the model's own answers where there are none.
        """
        outputs = answers.every(self.module(*inputs))
        if self.search.objective is not None:
            return self.search.objective(outputs, labels)
        first = outputs[0].float()
        wanted = answers.classes(first, labels) if wanted is None else wanted
        return first.square().mean() if wanted is None else answers.distance(first, wanted)

    @torch.no_grad()
    def wanted(self, inputs: Inputs, labels: torch.Tensor | None) -> torch.Tensor | None:
        """Labels, or else the classes (or numbers) of the first output under today's masks.

        None where the training's own loss says what is wanted.
        """
        if self.search.objective is not None:
            return None
        first = answers.every(self.module(*inputs))[0].float()
        classes = answers.classes(first, labels)
        return first if classes is None else classes

    # -- by masks -----------------------------------------------------------------------------------

    def mask_gradients(self) -> Iterator[np.ndarray]:
        """dL/ds times s, batch by batch: the sum of ``w dL/dw`` over the weights of every unit."""
        if not isinstance(self.masking, UnitMasking):
            weights = self.weights()
            for loss in self.losses():
                gradients = torch.autograd.grad(loss, list(weights.values()))
                yield self.unit_sums(
                    {name: w.detach() * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
                )
            return
        with self.masks_at_one() as probe:
            today = self.masking.masks.last
            if today is not None:
                with torch.no_grad():
                    probe.copy_(today)
            for loss in self.losses():
                (gradient,) = torch.autograd.grad(loss, probe)
                yield (gradient * probe.detach()).double().cpu().numpy()

    def masks_at_one(self) -> _Probe:
        """Masks of 1 that gradients reach, while the block lasts."""
        assert isinstance(self.masking, UnitMasking)
        return _Probe(self.masking.masks)

    # -- by weights ---------------------------------------------------------------------------------

    def weights(self) -> dict[str, nn.Parameter]:
        """The weights that masks multiply, by the names of their ONNX tensors."""
        return self.masking.tensors.weights()

    def unit_sums(self, arrays: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Sum of ``arrays`` (ONNX name -> numbers of the weight's shape) over the weights of every unit."""
        doubles = {name: array.detach().double() for name, array in arrays.items()}
        return np.asarray(self.masking.tensors.sums(doubles).cpu().numpy())

    def by_criterion(self, criterion: Criterion) -> np.ndarray:
        """What a criterion says of every unit, by today's weights. Raises OptionError."""
        return self.search.criterion_scores(criterion)

    def kept_with(self, scores: np.ndarray) -> np.ndarray:
        """The hard decision by ``scores``: bool ``[units]``. Raises BudgetError."""
        return self.units.harden(scores).keep


class _Probe:
    """Sets masks to 1 for a while."""

    def __init__(self, masks: Masks) -> None:
        self.masks, self.before = masks, masks.mode

    def __enter__(self) -> torch.Tensor:
        return self.masks.probe()

    def __exit__(self, *_: object) -> None:
        self.masks.mode = self.before
