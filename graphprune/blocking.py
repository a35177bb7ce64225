"""Weights cut into blocks ``O x I x Kh x Kw``, and which blocks stay under a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.allocation import Layer, find_allocation
from graphprune.contractions import ContractionWeight
from graphprune.errors import BudgetError, OptionError
from graphprune.graph import Value
from graphprune.hard_topk import hard_topk
from graphprune.notation import times
from graphprune.patterns import grid_of

Read = Callable[[Value], np.ndarray]


@dataclass(frozen=True)
class BlockedWeight:
    """One weight cut into blocks.

    ``grid``: blocks along each axis of the stored tensor; ``block``: their sizes; ``first``: the number of
    its first block. Blocks are numbered row-major over the grid; those at the far edges may be partial.
    """

    weight: ContractionWeight
    block: tuple[int, ...]
    grid: tuple[int, ...]
    first: int

    @property
    def count(self) -> int:
        """Blocks."""
        return math.prod(self.grid)

    @property
    def own(self) -> slice:
        """Its blocks among all."""
        return slice(self.first, self.first + self.count)

    def sizes(self) -> np.ndarray:
        """Real weights in every block: int ``[count]``."""
        found = np.ones((), np.int64)
        for size, block, n in zip(self.weight.shape, self.block, self.grid, strict=True):
            lengths = np.minimum(np.arange(1, n + 1) * block, size) - np.arange(n) * block
            found = np.multiply.outer(found, lengths)
        return found.reshape(-1)

    def sums(self, array: np.ndarray) -> np.ndarray:
        """Sum of ``array`` (the weight's shape) over every block: ``[count]``."""
        for axis, block in enumerate(self.block):
            array = np.add.reduceat(array, np.arange(0, array.shape[axis], block), axis=axis)
        return array.reshape(-1)

    def rows(self, array: np.ndarray) -> np.ndarray:
        """The weights of every block, partial blocks filled up with zeros: ``[count, block volume]``."""
        short = [(0, n * b - size) for n, b, size in zip(self.grid, self.block, array.shape, strict=True)]
        split = [size for pair in zip(self.grid, self.block, strict=True) for size in pair]
        parts = (np.pad(array, short) if np.any(short) else array).reshape(split)
        rank = array.ndim
        return parts.transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]).reshape(self.count, -1)

    def expand(self, entries: np.ndarray) -> np.ndarray:
        """One number for each block ``[count]`` -> one for each weight."""
        found = entries.reshape(self.grid)
        for axis, block in enumerate(self.block):
            found = np.repeat(found, block, axis=axis)
        return found[tuple(slice(0, n) for n in self.weight.shape)]


@dataclass(frozen=True, eq=False)
class Share:
    """Weights that share one budget: numbers of their blocks, and the cost that may stay."""

    weights: Sequence[BlockedWeight]
    units: np.ndarray
    budget: float


class Blocking:
    """Every block of the weights given, and their budgets, which count weights: partial blocks weigh less.

    ``ratios``: (weight, share) pairs that get a share of their own. ``allocation``: how the others share the budget
    (module ``allocation``). No weight loses more than ``most`` of itself.
    """

    def __init__(
        self,
        weights: Sequence[ContractionWeight],
        block: Sequence[int],
        sparsity: float,
        *,
        most: float = 0.98,
        allocation: str = "global",
        ratios: Mapping[ContractionWeight, float] | None = None,
    ) -> None:
        """Raises OptionError for a share out of range, BudgetError where no weight holds a block or the ratios
        leave no room."""
        if not 0 <= sparsity < 1:
            raise OptionError(f"--sparsity {sparsity:g}: give a share from 0 to below 1")
        if not 0 < most <= 1:
            raise OptionError(f"--max-layer-sparsity {most:g}: give a share above 0, up to 1")
        self.block, self.sparsity, self.most = tuple(block), sparsity, most
        self.allocation = allocation
        find_allocation(allocation)
        self.blocked: list[BlockedWeight] = []
        self.dense: list[str] = []
        """Weights that no block fits into; they are left whole."""
        first = 0
        for weight in weights:
            sizes = block_sizes(weight, block)
            if sizes is None:
                self.dense.append(weight.value.name)
                continue
            grid = grid_of(weight.shape, sizes)
            self.blocked.append(BlockedWeight(weight, sizes, grid, first))
            first += math.prod(grid)
        if not self.blocked:
            raise BudgetError(f"no weight holds a block of {times(block)}: give a smaller --block")
        self.size = first
        self.cost = np.concatenate([b.sizes() for b in self.blocked]).astype(np.float64)
        self.shares = self._shares(ratios or {})

    @property
    def total(self) -> float:
        """Weights in all blocks."""
        return float(self.cost.sum())

    def _shares(self, ratios: Mapping[ContractionWeight, float]) -> list[Share]:
        alone = [b for b in self.blocked if b.weight in ratios]
        rest = [b for b in self.blocked if b.weight not in ratios]
        found = [Share([b], _units([b]), self._cost([b]) * (1 - ratios[b.weight])) for b in alone]
        budget = self.total * (1 - self.sparsity) - sum(s.budget for s in found)
        if alone:
            room = self._cost(rest)
            if not -1e-9 * self.total <= budget <= room * (1 + 1e-9):
                raise BudgetError(
                    f"--sparsity {self.sparsity:g} cannot be reached with these --ratio: the other weights would "
                    f"have to keep {budget:.0f} of their {room:.0f}; ask for another sparsity"
                )
        if rest:
            found.append(Share(rest, _units(rest), max(budget, 0.0)))
        return found

    def _cost(self, weights: Sequence[BlockedWeight]) -> float:
        return float(sum(self.cost[b.own].sum() for b in weights))

    def scores(self, read: Read = Value.array) -> np.ndarray:
        """Root mean square of every block's weights (methods.md A4): float ``[units]``."""
        found = []
        for b in self.blocked:
            data = np.asarray(read(b.weight.value)).astype(np.float64)
            found.append(np.sqrt(b.sums(data * data) / b.sizes()))
        return np.concatenate(found)

    def floors(self, scores: np.ndarray) -> np.ndarray:
        """The best blocks of every weight, so that none loses more than ``most``: bool ``[units]``."""
        keep = np.zeros(self.size, bool)
        for b in self.blocked:
            cost = self.cost[b.own]
            order = np.argsort(-scores[b.own], kind="stable")
            reached = np.cumsum(cost[order]) >= (1 - self.most) * cost.sum() - 1e-9
            keep[b.own][order[: int(np.argmax(reached)) + 1]] = True
        return keep

    def choose(self, scores: np.ndarray) -> np.ndarray:
        """The best blocks within the budgets: bool ``[units]``.

        Raises BudgetError where the floors alone exceed a budget.
        """
        floors = self.floors(scores)
        rank = find_allocation(self.allocation)
        ranks = np.concatenate([rank(self._layer(b, scores)) for b in self.blocked])
        keep = np.zeros(self.size, bool)
        for share in self.shares:
            own, cost = share.units, self.cost[share.units]
            least = float(cost[floors[own]].sum())
            if least > share.budget * (1 + 1e-12):
                asked, most = 1 - share.budget / cost.sum(), 1 - least / cost.sum()
                raise BudgetError(
                    f"--sparsity {self.sparsity:g} cannot be reached: {asked:.4f} asked, at most {most:.4f} possible "
                    f"with --max-layer-sparsity {self.most:g}; ask for less, or raise it"
                )
            keep[own] = hard_topk(ranks[own], share.budget, cost, keep=floors[own])
        return keep

    def achieved(self, keep: np.ndarray) -> float:
        """Share of the weights that go."""
        return 1 - float(self.cost[keep].sum()) / self.total

    def masks(self, keep: np.ndarray) -> dict[str, np.ndarray]:
        """Weight name -> bool mask of the weight's shape."""
        return {b.weight.value.name: b.expand(keep[b.own]).astype(bool) for b in self.blocked}

    def plan_fields(self, keep: np.ndarray) -> dict[str, Any]:
        """What the plan says of ``keep``."""
        blocks = {
            b.weight.value.name: {"shape": list(b.block), "kept": np.flatnonzero(keep[b.own]).tolist()}
            for b in self.blocked
        }
        return {"structure": "block", "pattern": times(self.block), "blocks": blocks}

    def _layer(self, b: BlockedWeight, scores: np.ndarray) -> Layer:
        def squares() -> np.ndarray:
            return b.sums(np.square(np.asarray(b.weight.value.array()).astype(np.float64)))

        return Layer(scores[b.own], self.cost[b.own], [b.weight.shape], squares, scores[b.own])


def _units(weights: Sequence[BlockedWeight]) -> np.ndarray:
    return np.concatenate([np.arange(b.first, b.first + b.count) for b in weights])


def block_sizes(weight: ContractionWeight, block: Sequence[int]) -> tuple[int, ...] | None:
    """``block`` (outputs, inputs, kernel...) along the axes of a stored weight; None where none fits.

    -1 is a whole axis. Kernel sizes that the weight lacks (a matrix) count as 1. In a grouped convolution
    no block reaches into the next group.
    """
    kernel_axes = [a for a in range(len(weight.shape)) if a not in (weight.out_axis, weight.in_axis)]
    order = [weight.out_axis, weight.in_axis, *kernel_axes]
    along = weight.group_axis
    whole = list(weight.shape)
    whole[along] //= weight.conv_groups
    found = [0] * len(order)
    for axis, size in zip(order, [*block, *[1] * len(order)], strict=False):
        found[axis] = whole[axis] if size == -1 else size
    if any(b > n for b, n in zip(found, whole, strict=True)):
        return None
    return None if weight.conv_groups > 1 and whole[along] % found[along] else tuple(found)
