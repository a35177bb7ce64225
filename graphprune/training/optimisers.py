"""Optimisers by name, all from torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from graphprune.errors import OptionError
from graphprune.lookup import lookup

BETA2 = 0.999
"""The second moment's decay of Adam and AdamW (torch's default)."""

MUON_ADAM_BETA1 = 0.9
"""First moment's decay of the AdamW beside Muon, whose own momentum is another quantity."""


class Optimizer(Protocol):
    """What a training loop needs of an optimiser; torch's have it."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Settings of each group of parameters: ``lr``, ``initial_lr`` and more."""

    @property
    def state(self) -> Mapping[Any, dict[str, Any]]:
        """Parameter -> its buffers."""

    def step(self) -> Any:
        """Move the parameters along their gradients; those without a gradient stay."""

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint must hold."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""


def build_optimizer(
    name: str,
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    not_matrices: Collection[str] = (),
) -> Optimizer:
    """The optimiser ``name`` (adam, adamw, muon, rmsprop, sgd) over named parameters.

    ``momentum`` is beta 1 of adam and adamw. ``not_matrices`` names weights that muon must leave to Adam
    besides everything of rank below 2: depthwise convolutions and the last layer. Frozen parameters are
    passed over. Every group has its ``initial_lr``.

    Raises OptionError for an unknown name.
    """
    build = lookup(OPTIMIZERS, name, "optimiser")
    trained = [(key, p) for key, p in parameters if p.requires_grad]
    if not trained:
        return Together([])
    optimizer = build(_Order(trained, lr, momentum, weight_decay, not_matrices))
    for group in optimizer.param_groups:
        group["initial_lr"] = lr
    return optimizer


class Together:
    """Several optimisers as one."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = list(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> Mapping[Any, dict[str, Any]]:
        """Of all parts."""
        return {key: value for part in self.parts for key, value in part.state.items()}

    def step(self) -> None:
        """Step every part."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """One state per part."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


class MatrixMuon:
    """torch.optim.Muon, which takes matrices only, over weights of any rank from 2.

    A weight ``[O, I, kh, kw]`` is stepped as the matrix ``[O, I kh kw]`` (leading axes of size 1 join the
    next). The update has the root mean square of Adam's: 0.2 sqrt(longer side), "match_rms_adamw".
    """

    def __init__(self, weights: Sequence[nn.Parameter], *, lr: float, momentum: float, decay: float) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise OptionError(f"--optimizer muon needs torch 2.9 or later, this is torch {torch.__version__}")
        self.weights = list(weights)
        self.matrices = [_matrix(w.detach()) for w in self.weights]
        self.muon: torch.optim.Optimizer = torch.optim.Muon(
            self.matrices, lr=lr, momentum=momentum, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The group of all weights."""
        return self.muon.param_groups

    @property
    def state(self) -> Mapping[Any, dict[str, Any]]:
        """Of Muon, by matrix."""
        return self.muon.state

    @torch.no_grad()
    def step(self) -> None:
        """Step every weight that has a gradient."""
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            matrix.grad = None if weight.grad is None else _matrix(weight.grad)
            matrix.data = _matrix(weight.detach())  # again: the weight's storage may have been replaced
        self.muon.step()
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            if matrix.data_ptr() != weight.data_ptr():  # a copy, where no view was possible
                weight.copy_(matrix.view(weight.shape))

    def zero_grad(self) -> None:
        """Forget the gradients, of the weights too."""
        for weight in self.weights:
            weight.grad = None
        self.muon.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Muon's own."""
        return self.muon.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.muon.load_state_dict(state_dict)


@dataclass(frozen=True)
class _Order:
    named: list[tuple[str, nn.Parameter]]
    lr: float
    momentum: float
    weight_decay: float
    not_matrices: Collection[str]

    @property
    def values(self) -> list[nn.Parameter]:
        return [p for _, p in self.named]


def _adam(o: _Order) -> Optimizer:
    return torch.optim.Adam(o.values, lr=o.lr, betas=(o.momentum, BETA2), weight_decay=o.weight_decay)


def _adamw(o: _Order) -> Optimizer:
    return torch.optim.AdamW(o.values, lr=o.lr, betas=(o.momentum, BETA2), weight_decay=o.weight_decay)


def _sgd(o: _Order) -> Optimizer:
    return torch.optim.SGD(o.values, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)


def _rmsprop(o: _Order) -> Optimizer:
    return torch.optim.RMSprop(o.values, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)


def _muon(o: _Order) -> Optimizer:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, p in o.named:
        (matrices if p.ndim >= 2 and name not in o.not_matrices else others).append(p)
    parts: list[Optimizer] = []
    if matrices:
        parts.append(MatrixMuon(matrices, lr=o.lr, momentum=o.momentum, decay=o.weight_decay))
    if others:
        betas = (MUON_ADAM_BETA1, BETA2)
        parts.append(torch.optim.AdamW(others, lr=o.lr, betas=betas, weight_decay=o.weight_decay))
    return Together(parts)


OPTIMIZERS: dict[str, Callable[[_Order], Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "muon": _muon,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    rows = next((size for size in weight.shape[:-1] if size > 1), 1)
    return weight.reshape(rows, -1)
