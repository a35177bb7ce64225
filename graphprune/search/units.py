"""What mask entries stand for, whatever the structure: budgets, floors, gates, and the hard decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graphprune.graph import Node


@dataclass(frozen=True, eq=False)
class Gate:
    """A value of the graph is multiplied by mask entries.

    ``entries``: int array of entry numbers. It broadcasts against the value, viewed as ``split`` where that
    is given (blocks).
    """

    value: str
    entries: np.ndarray
    shape: tuple[int, ...] | None = None
    """The value's own shape; None where it has a batch axis."""
    split: tuple[int, ...] | None = None


class Curve(Protocol):
    """A cost of all mask entries that grows with each of them."""

    def value_and_gradient(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        """Cost of soft masks ``s`` (float64 ``[units]``) and its gradient."""


@dataclass(frozen=True, eq=False)
class Section:
    """Mask entries under one budget: ``sum(cost * s)`` (or ``curve``) goes from ``total`` to ``target``."""

    units: np.ndarray
    cost: np.ndarray
    total: float
    target: float
    curve: Curve | None = None


@dataclass(frozen=True, eq=False)
class Hard:
    """A hard decision: ``keep`` (bool ``[units]``), the share it achieves, and what surgery needs."""

    keep: np.ndarray
    achieved: float
    decision: Any = None


class Units(Protocol):
    """A structure, cut into what single mask entries decide.

    Entry numbers (``Gate.entries``) run over ``entries``, in which unit ``u`` has number ``slots[u]``; an
    entry of no unit is 1, or the product of two others (``derived``: entry and its two factors).
    """

    size: int
    entries: int
    slots: np.ndarray
    derived: np.ndarray
    cost: np.ndarray
    """What the budget counts of each unit, float ``[units]``: weights of a block, filters of a channel."""
    layers: np.ndarray
    """The layer of each unit: those of a number come from one weight, or one set of coupled layers."""
    relative: bool
    """Whether a unit's weights lie in several tensors, whose scales are to cancel."""

    @property
    def sections(self) -> Sequence[Section]:
        """Budgets; together they hold every unit once."""

    @property
    def gates(self) -> Sequence[Gate]:
        """Where entries act."""

    @property
    def members(self) -> Sequence[Gate]:
        """All weights that go with units, those that masks multiply and others, addressed as by gates."""

    @property
    def statistics(self) -> Sequence[tuple[Node, np.ndarray]]:
        """Normalisations over channels, with the entries of those channels."""

    def scores(self, read: Any) -> np.ndarray:
        """Importance from weights alone: float ``[units]``; ``read`` gives a stored tensor's data."""

    def activation_scores(self, read: Any, norms: Mapping[str, np.ndarray], *, weighted: bool) -> np.ndarray:
        """Importance from input norms (weight name -> ``[inputs]``), and weights where ``weighted``."""

    def floors(self, logits: np.ndarray) -> np.ndarray:
        """Units that must stay while ``logits`` order them: bool ``[units]``."""

    def harden(self, logits: np.ndarray) -> Hard:
        """The decision by ``logits``, within the budget exactly. Raises BudgetError."""


def layered(units: Units, keep: np.ndarray) -> list[Section]:
    """A budget for every layer: what ``keep`` (bool ``[units]``) leaves it."""
    parts = [np.flatnonzero(units.layers == layer) for layer in np.unique(units.layers)]
    return [
        Section(u, units.cost[u], float(units.cost[u].sum()), float(units.cost[u][keep[u]].sum()))
        for u in parts
    ]
