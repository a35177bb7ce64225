"""How a budget is spread over layers: the order inside each is the criterion's, the order between them is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.errors import OptionError
from graphprune.lookup import hint


@dataclass(frozen=True, eq=False)
class Layer:
    """Units that one budget takes from side by side: the blocks of a weight, or channels that go together.

    scores: float ``[units]``, the largest stay longest. cost: float ``[units]``. shapes: of the weights concerned
    (outputs, inputs, kernel; in any order). squares: gives the sum of squares of every unit's weights.
    """

    scores: np.ndarray
    cost: np.ndarray
    shapes: Sequence[tuple[int, ...]]
    squares: Callable[[], np.ndarray]


Allocation = Callable[[Layer], np.ndarray]
"""-> float ``[units]``, comparable between layers and ordered as the scores are."""


def everywhere(layer: Layer) -> np.ndarray:
    """The scores themselves: one threshold for all layers."""
    return layer.scores


def uniform(layer: Layer) -> np.ndarray:
    """The same share of every layer."""
    return -_places(layer)


def erk(layer: Layer) -> np.ndarray:
    """Densities in proportion to ``(sum of sizes) / (product of sizes)`` of the weight, at most 1.

    Erdos-Renyi-Kernel (Evci et al. 2020, arXiv:1911.11134, section 3): large layers lose more.
    """
    densities = [sum(shape) / math.prod(shape) for shape in layer.shapes if shape]
    return -_places(layer) / float(np.mean(densities)) if densities else -_places(layer)


def lamp(layer: Layer) -> np.ndarray:
    """The shares that LAMP would take (Lee et al. 2021, arXiv:2010.07611), filled in the criterion's order."""
    found = np.empty(layer.scores.size)
    found[np.argsort(-layer.scores, kind="stable")] = -np.sort(-lamp_scores(layer.squares()))
    return found


ALLOCATIONS: dict[str, Allocation] = {"global": everywhere, "uniform": uniform, "erk": erk, "lamp": lamp}


def find_allocation(name: str) -> Allocation:
    """Raises OptionError, with the nearest name, for an unknown one."""
    if name not in ALLOCATIONS:
        raise OptionError(f"unknown allocation {name!r}: {hint(name, ALLOCATIONS)}")
    return ALLOCATIONS[name]


def lamp_scores(squares: np.ndarray) -> np.ndarray:
    """``squares`` over the sum of all that are no smaller (LAMP, equation 2): float64 ``[units]``, at most 1."""
    order = np.argsort(-squares, kind="stable")
    falling = squares[order].astype(np.float64)
    last = np.searchsorted(-falling, -falling, side="right") - 1  # equal units see each other
    found = np.empty(squares.size)
    found[order] = falling / np.maximum(np.cumsum(falling)[last], np.finfo(np.float64).tiny)
    return found


def _places(layer: Layer) -> np.ndarray:
    """How much of its own layer is at least as good as each unit: from 0 to 1."""
    order = np.argsort(-layer.scores, kind="stable")
    cost = layer.cost[order]
    found = np.empty(layer.scores.size)
    found[order] = (np.cumsum(cost) - cost / 2) / cost.sum()
    return found
