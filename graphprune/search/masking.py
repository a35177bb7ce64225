"""What a search asks of masks in a module, whatever the structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from graphprune.errors import OptionError
from graphprune.search.units import Hard


class Tensors(Protocol):
    """The weights that masks multiply, as units."""

    size: int

    def weights(self) -> dict[str, nn.Parameter]:
        """By the names of their ONNX tensors."""

    def sums(self, arrays: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum of ``arrays`` (of the weights' shapes) over every unit, ``[size]``."""


class Masking(Protocol):
    """Masks in a module: dense at first, soft during the search, hard from its end."""

    hard: Hard | None

    @property
    def tensors(self) -> Tensors:
        """The weights behind the masks."""

    def start(self, scores: np.ndarray) -> None:
        """What units compete with from now on (float ``[size]``), where the method does not say itself."""

    def parameters(self) -> list[nn.Parameter]:
        """Mask logits, if the method trains any."""

    def soften(self) -> None:
        """Begin the search."""

    def advance(self, temperature: float, progress: float, held: bool) -> None:
        """Set what the next forwards use; ``progress`` goes from 0 (all kept) to 1 (the budget holds). ``held``: the
        masks of before serve again."""

    def choose(self) -> None:
        """Choose masks now, for the steps in which they are held."""

    def held_masks(self) -> np.ndarray | None:
        """The masks that were chosen last, float ``[size]``; None before the first."""

    def observe(self, decay: float) -> None:
        """Update the running means of ``|w dL/dw|`` by the gradients of this step."""

    def restart(self) -> None:
        """Weights under masks of 0 become 0."""

    def clip(self, low: float, high: float) -> None:
        """Bring logits back into a box."""

    def refresh(self) -> None:
        """Find the floors again by today's order."""

    def snap(self) -> None:
        """Make the soft budget that of today's hard decision."""

    def undecided(self) -> float:
        """Share of masks between 0.05 and 0.95."""

    def kept(self) -> float:
        """Share of the cost that the masks of this step keep."""

    def harden(self, *, held_first: bool = False) -> Hard:
        """Fix the decision; ``held_first``: what the masks of before keep comes first."""

    def state(self) -> dict[str, Any]:
        """What the module's state_dict does not hold."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave."""


def gradient_of(weight: nn.Parameter, name: str) -> torch.Tensor:
    """Raises OptionError where the loop has thrown it away."""
    if weight.grad is None:
        raise OptionError(f"the weight {name!r} has no gradient: call Search.step() before zero_grad()")
    return weight.grad
