"""Structure ``block`` while it is trained: one mask entry for each block of a contraction's weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphprune.blocking import BlockedWeight, Blocking, Read
from graphprune.contractions import ContractionWeight
from graphprune.graph import Node
from graphprune.search.units import Gate, Hard, Section


class BlockUnits:
    """Mask entries are weight blocks."""

    def __init__(self, blocking: Blocking) -> None:
        self.blocking = blocking
        self.size = self.entries = blocking.size
        self.slots = np.arange(self.size)
        self.derived = np.zeros((0, 3), np.int64)
        self.sections = _sections(blocking)
        self.cost = blocking.cost
        self.layers = np.repeat(np.arange(len(blocking.blocked)), [b.count for b in blocking.blocked])
        self.relative = False
        self.gates = self.members = [_gate(b) for b in blocking.blocked]
        self.statistics: list[tuple[Node, np.ndarray]] = []

    def scores(self, read: Read) -> np.ndarray:
        """Root mean square of every block's weights (methods.md A4): float ``[units]``."""
        return self.blocking.scores(read)

    def activation_scores(self, read: Read, norms: Mapping[str, np.ndarray], *, weighted: bool) -> np.ndarray:
        """Mean of input norms over every block, times ``|w|`` where ``weighted``: float ``[units]``.

        Each relative to its weight's mean.
        """
        found = []
        for b in self.blocking.blocked:
            w = b.weight
            norm = norms.get(w.value.name)
            inputs = np.ones(w.shape) if norm is None else _along_inputs(w, norm)
            if weighted:
                inputs = inputs * np.abs(np.asarray(read(w.value), np.float64))
            means = b.sums(inputs) / b.sizes()
            found.append(means / max(float(means.mean()), 1e-30))
        return np.concatenate(found)

    def floors(self, logits: np.ndarray) -> np.ndarray:
        """The best blocks of every weight, so that none loses more than it may."""
        return self.blocking.floors(logits)

    def harden(self, logits: np.ndarray) -> Hard:
        """The best blocks within the budget. Raises BudgetError where the floors alone exceed it."""
        keep = self.blocking.choose(logits)
        return Hard(keep, self.blocking.achieved(keep), keep)


def _sections(blocking: Blocking) -> list[Section]:
    """Budgets of the soft masks: one for all weights that share one, or one for each as its allocation says."""
    found = []
    alone = blocking.allocation != "global"
    keep = blocking.choose(blocking.scores()) if alone else None
    for share in blocking.shares:
        parts = [np.arange(b.first, b.first + b.count) for b in share.weights]
        for units in parts if alone else [share.units]:
            cost = blocking.cost[units]
            total = float(cost.sum())
            target = share.budget if keep is None else float(cost[keep[units]].sum())
            found.append(Section(units, cost, total, target))
    return found


def _gate(b: BlockedWeight) -> Gate:
    """Where the mask entries act; blocks that stick out are written out along that axis."""
    entries = np.arange(b.first, b.first + b.count).reshape(b.grid)
    shape: list[int] = []
    split: list[int] = []
    for axis, (size, block, n) in enumerate(zip(b.weight.shape, b.block, b.grid, strict=True)):
        if n * block == size:
            shape += [n, 1]
            split += [n, block]
        else:
            entries = entries.take(np.arange(size) // block, axis)
            shape.append(size)
            split.append(size)
    return Gate(b.weight.value.name, entries.reshape(shape), b.weight.shape, tuple(split))


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
