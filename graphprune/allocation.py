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
    (outputs, inputs, kernel; in any order). squares: gives the sum of squares of every unit's weights. values: what
    the criterion says of every unit, comparable between layers; ``scores`` have the same order.
    """

    scores: np.ndarray
    cost: np.ndarray
    shapes: Sequence[tuple[int, ...]]
    squares: Callable[[], np.ndarray]
    values: np.ndarray


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


def pq(layer: Layer) -> np.ndarray:
    """Densities in proportion to what the PQ index says must stay: layers with few large units lose more.

    ``(1 - I)^(pq / (q - p))`` of the units, with I the index of their norms and p = 1/2, q = 1 (Diao et al. 2023,
    arXiv:2302.05601, theorem 1 with eta = 0).
    """
    return -_places(layer) / pq_density(np.sqrt(layer.squares()))


def pq_density(norms: np.ndarray, p: float = 0.5, q: float = 1.0) -> float:
    """Share of the units that stay by their PQ index: 1 where all norms are equal, 1 / n where all but one are 0."""
    largest = float(norms.max(initial=0.0))
    if largest <= 0:
        return 1.0
    w = norms.astype(np.float64) / largest
    index = 1 - w.size ** (1 / q - 1 / p) * (w**p).sum() ** (1 / p) / (w**q).sum() ** (1 / q)
    return float((1 - index) ** (p * q / (q - p)))


def precrop(layer: Layer) -> np.ndarray:
    """Widths that are the square root of densities: PreCropping (Cai et al. 2022, arXiv:2203.02549).

    The density of a layer is the share of its units that a threshold over the whole model keeps, by whatever
    criterion; a dense layer of as many weights has that share's square root of its channels.
    """
    falling = np.sort(layer.values)[::-1]
    above = np.ceil(np.square(_places(layer)) * falling.size).astype(int)
    return np.asarray(falling[np.clip(above, 1, falling.size) - 1])


ALLOCATIONS: dict[str, Allocation] = {
    "global": everywhere, "uniform": uniform, "erk": erk, "lamp": lamp, "pq": pq, "precrop": precrop,
}  # fmt: skip

WITH_INPUTS = ("rate-distortion", "cosine")
"""Allocations that look at inputs (module ``calibration.channels``)."""


def find_allocation(name: str) -> Allocation:
    """Raises OptionError, with the nearest name, for an unknown one."""
    if name in WITH_INPUTS:
        raise OptionError(
            f"--allocation {name} looks at inputs: give --data, to a method without training, and whole channels"
        )
    if name not in ALLOCATIONS:
        raise OptionError(f"unknown allocation {name!r}: {hint(name, [*ALLOCATIONS, *WITH_INPUTS])}")
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
