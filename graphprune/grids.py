"""Coupled channels that stay only while two others do: elements of a grid of heads and widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphprune.records import Product


@dataclass(frozen=True, eq=False)
class Grids:
    """``parents`` ``[components, 2]``: what a derived channel depends on, -1 for ordinary channels."""

    parents: np.ndarray

    @cached_property
    def derived(self) -> np.ndarray:
        """bool ``[components]``: channels that are not decided by themselves."""
        found: np.ndarray = self.parents[:, 0] >= 0
        return found

    def complete(self, alive: np.ndarray) -> np.ndarray:
        """A decision on ordinary channels -> one on all of them (bool ``[components]``)."""
        derived = self.derived
        if not derived.any():
            return alive
        alive = alive.copy()
        alive[derived] = alive[self.parents[derived, 0]] & alive[self.parents[derived, 1]]
        return alive

    def decided(self, alive: np.ndarray) -> np.ndarray:
        """The way back from ``complete``: ordinary channels of which no derived one stays have gone too."""
        derived = np.flatnonzero(self.derived)
        alive = alive.copy()
        parents = self.parents[derived].reshape(-1)
        total = np.bincount(parents, minlength=alive.size)
        left = np.bincount(parents, np.repeat(alive[derived], 2), minlength=alive.size)
        alive[(total > 0) & (left == 0)] = False
        return alive

    def spread(self, scores: np.ndarray) -> np.ndarray:
        """Scores of derived channels given to their parents, as means (float ``[components]``)."""
        derived = np.flatnonzero(self.derived)
        if not derived.size:
            return scores
        scores = scores.copy()
        for side in (0, 1):
            parents = self.parents[derived, side]
            total = np.bincount(parents, scores[derived], minlength=scores.size)
            count = np.bincount(parents, minlength=scores.size)
            scores[count > 0] = total[count > 0] / count[count > 0]
        return scores

    def deciders(self, channels: np.ndarray) -> np.ndarray:
        """Distinct ordinary channels behind ``channels``, in order of appearance."""
        flat = channels.reshape(-1)
        derived = self.derived[flat]
        found = np.concatenate([flat[~derived], self.parents[flat[derived]].reshape(-1)])
        unique, first = np.unique(found, return_index=True)
        ordered: np.ndarray = unique[np.argsort(first)]
        return ordered


def further_ties(products: Sequence[Product], component: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ties between labels that make every grid well defined; empty arrays when it is.

    A derived channel must have one pair of parents (several are tied side by side), and a parent must
    not be derived itself (then the three are tied into one, which is always safe).
    """
    if not products:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ids, outer, inner = (
        np.concatenate([getattr(p, side).reshape(-1) for p in products]) for side in ("ids", "outer", "inner")
    )
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    channel = component[ids]
    order = np.argsort(channel, kind="stable")
    for side in (outer, inner):
        same = channel[order][1:] == channel[order][:-1]
        differs = component[side[order]][1:] != component[side[order]][:-1]
        hit = np.flatnonzero(same & differs)
        left.append(side[order][hit])
        right.append(side[order][hit + 1])
    derived = np.zeros(component.max() + 1, bool)
    derived[channel] = True
    for side, other in ((outer, inner), (inner, outer)):
        collapsed = (component[side] == channel) & (component[other] == channel)
        nested = derived[component[side]] & ~collapsed
        left += [ids[nested], ids[nested]]
        right += [side[nested], other[nested]]
    return np.concatenate(left), np.concatenate(right)


def parents_of(products: Sequence[Product], component: np.ndarray, count: int) -> np.ndarray:
    """The parents of every component, where ``further_ties`` has nothing to add."""
    parents = np.full((count, 2), -1)
    for p in products:
        channel = component[p.ids.reshape(-1)]
        pair = np.stack([component[p.outer.reshape(-1)], component[p.inner.reshape(-1)]], axis=1)
        real = (pair[:, 0] != channel) & (pair[:, 1] != channel)
        parents[channel[real]] = pair[real]
    return parents
