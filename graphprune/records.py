"""What rules leave behind: plain records about labels, collected by the Coupler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.graph import Node, Value
from graphprune.reasons import Reason


@dataclass(frozen=True, eq=False)
class Slice:
    """Where labels touch a stored tensor: ``ids[i]`` is the label of index ``i`` along ``axis``.

    With ``rows`` > 1, axis 0 of the tensor is cut into that many equal blocks and ``ids`` is
    ``[rows, n]``: each block loses its own indices (grouped convolutions), always equally many.
    """

    tensor: Value
    axis: int
    ids: np.ndarray
    rows: int = 1


@dataclass(frozen=True, eq=False)
class Balance:
    """Count constraint: every row of ``ids`` ``[rows, n]`` must lose equally many positions."""

    kind: str
    node: Node
    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class Frozen:
    """Labels that must stay, and why. ``exact_only``: --allow-inexact lifts it."""

    ids: np.ndarray
    reason: Reason
    node: Node | None
    exact_only: bool = False

    @property
    def sentence(self) -> str:
        """The reason, with the operator that it comes from."""
        where = f" ({self.node.op} {self.node.name!r})" if self.node is not None else ""
        return self.reason.value + where


@dataclass(frozen=True, eq=False)
class Product:
    """A grid: ``ids`` stay where both ``outer`` and ``inner`` do (three arrays of one shape)."""

    ids: np.ndarray
    outer: np.ndarray
    inner: np.ndarray


@dataclass(frozen=True, eq=False)
class Mixing:
    """A cross-channel operator: ``ids`` are the labels along ``axis`` of its first input."""

    node: Node
    axis: int
    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class Gate:
    """Two activations contract over ``axis`` of ``value``: the masked model must zero one of them."""

    value: Value
    axis: int
    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class Work:
    """MACs of ``node``: ``coefficient`` times the number of kept positions of each vector."""

    node: Node
    coefficient: float
    vectors: tuple[np.ndarray, ...]
