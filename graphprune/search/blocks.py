"""Structure ``block``: one mask entry for each ``O x I x Kh x Kw`` block of a contraction's weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.errors import BudgetError, OptionError
from graphprune.graph import Graph, Node
from graphprune.relaxation import hard_topk
from graphprune.search.units import Gate, Hard, Section
from graphprune.search.weights import ContractionWeight, contraction_weights


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

    def expand(self, entries: np.ndarray) -> np.ndarray:
        """One number for each block ``[count]`` -> one for each weight."""
        found = entries.reshape(self.grid)
        for axis, block in enumerate(self.block):
            found = np.repeat(found, block, axis=axis)
        return found[tuple(slice(0, n) for n in self.weight.shape)]

    def gate(self) -> Gate:
        """Where the mask entries act; blocks that stick out are written out along that axis."""
        entries = np.arange(self.first, self.first + self.count).reshape(self.grid)
        shape: list[int] = []
        split: list[int] = []
        for axis, (size, block, n) in enumerate(zip(self.weight.shape, self.block, self.grid, strict=True)):
            if n * block == size:
                shape += [n, 1]
                split += [n, block]
            else:
                entries = entries.take(np.arange(size) // block, axis)
                shape.append(size)
                split.append(size)
        return Gate(self.weight.value.name, entries.reshape(shape), self.weight.shape, tuple(split))


class BlockUnits:
    """Mask entries are weight blocks; the budget counts weights, so partial blocks weigh less."""

    def __init__(
        self, graph: Graph, block: Sequence[int], sparsity: float, *, max_layer_sparsity: float = 0.98
    ) -> None:
        self.blocked: list[BlockedWeight] = []
        self.dense: list[str] = []
        """Weights that no block fits into; they are left whole."""
        first = 0
        for weight in contraction_weights(graph):
            sizes = block_sizes(weight, block)
            if sizes is None:
                self.dense.append(weight.value.name)
                continue
            grid = tuple(-(-n // b) for n, b in zip(weight.shape, sizes, strict=True))
            self.blocked.append(BlockedWeight(weight, sizes, grid, first))
            first += math.prod(grid)
        if not self.blocked:
            raise BudgetError(
                f"no weight holds a block of {'x'.join(map(str, block))}: give a smaller --block"
            )
        self.size = self.entries = first
        self.slots = np.arange(first)
        self.derived = np.zeros((0, 3), np.int64)
        self.cost = np.concatenate([b.sizes() for b in self.blocked]).astype(np.float64)
        self.sparsity, self.most = sparsity, max_layer_sparsity
        total = float(self.cost.sum())
        self.budget = total * (1 - sparsity)
        self.sections = [Section(self.slots, self.cost, total, self.budget)]
        self.gates = [b.gate() for b in self.blocked]
        self.statistics: list[tuple[Node, np.ndarray]] = []

    def scores(self, read: object = None) -> np.ndarray:
        """Root mean square of every block's weights (methods.md A4): float ``[units]``."""
        found = []
        for b in self.blocked:
            data = read(b.weight.value) if callable(read) else b.weight.value.array()
            found.append(np.sqrt(b.sums(np.asarray(data, np.float64) ** 2) / b.sizes()))
        return np.concatenate(found)

    def activation_scores(
        self, read: object, norms: Mapping[str, np.ndarray], *, weighted: bool
    ) -> np.ndarray:
        """Mean of input norms over every block, times ``|w|`` where ``weighted``: float ``[units]``.

        Each relative to its weight's mean.
        """
        found = []
        for b in self.blocked:
            w = b.weight
            norm = norms.get(w.value.name)
            inputs = np.ones(w.shape) if norm is None else _along_inputs(w, norm)
            if weighted:
                data = read(w.value) if callable(read) else w.value.array()
                inputs = inputs * np.abs(np.asarray(data, np.float64))
            means = b.sums(inputs) / b.sizes()
            found.append(means / max(float(means.mean()), 1e-30))
        return np.concatenate(found)

    def floors(self, logits: np.ndarray) -> np.ndarray:
        """The best blocks of every weight, so that none loses more than ``max_layer_sparsity``."""
        keep = np.zeros(self.size, bool)
        for b in self.blocked:
            own = slice(b.first, b.first + b.count)
            cost = self.cost[own]
            order = np.argsort(-logits[own], kind="stable")
            reached = np.cumsum(cost[order]) >= (1 - self.most) * cost.sum() - 1e-9
            keep[own][order[: int(np.argmax(reached)) + 1]] = True
        return keep

    def harden(self, logits: np.ndarray) -> Hard:
        """The best blocks within the budget. Raises BudgetError where the floors alone exceed it."""
        floors = self.floors(logits)
        least = float(self.cost[floors].sum())
        if least > self.budget:
            most = 1 - least / self.cost.sum()
            raise BudgetError(
                f"--sparsity {self.sparsity:g} cannot be reached: at most {most:.4f} with "
                f"--max-layer-sparsity {self.most:g}; ask for less, or raise it"
            )
        keep = hard_topk(logits, self.budget, self.cost, keep=floors)
        return Hard(keep, 1 - float(self.cost[keep].sum()) / float(self.cost.sum()), keep)

    def masks(self, keep: np.ndarray) -> dict[str, np.ndarray]:
        """Weight name -> bool mask of the weight's shape."""
        return {
            b.weight.value.name: b.expand(keep[b.first : b.first + b.count]).astype(bool)
            for b in self.blocked
        }


def _along_inputs(weight: ContractionWeight, norm: np.ndarray) -> np.ndarray:
    """Norms of all input channels, written out over a weight (whose groups have inputs of their own)."""
    shape, outer, inner = weight.shape, weight.out_axis, weight.in_axis
    view = [1] * len(shape)
    view[inner] = shape[inner]
    if norm.size == shape[inner]:
        return np.broadcast_to(norm.reshape(view), shape)
    groups = weight.conv_groups
    if norm.size != shape[inner] * groups:
        return np.ones(shape)
    rows = np.repeat(norm.reshape(groups, -1), shape[outer] // groups, axis=0)
    view[outer] = shape[outer]
    return np.broadcast_to((rows if outer < inner else rows.T).reshape(view), shape)


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


def parse_block(text: str) -> tuple[int, ...]:
    """``16x8x1x1`` -> ``(16, 8, 1, 1)``; -1 is a whole axis. Raises OptionError."""
    try:
        sizes = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        sizes = ()
    if not 2 <= len(sizes) <= 5 or any(s == 0 or s < -1 for s in sizes):
        raise OptionError(f"--block {text!r} is not understood: write outputs x inputs x kernel, as 16x8x1x1")
    return sizes + (1,) * (4 - len(sizes))
