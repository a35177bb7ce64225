"""Ties -> coupled channels: connected components, what is frozen and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune.coupler import Coupler
from graphprune.edits import Kept
from graphprune.graph import Graph, Value
from graphprune.grids import Grids, further_ties, parents_of
from graphprune.labels import Labels
from graphprune.records import Frozen


@dataclass(eq=False)
class Coupling:
    """The result: labels of every value, and the coupled channel of every label.

    ``component`` ``[labels]`` maps a label to its coupled channel; component 0 holds label 0.
    ``frozen`` ``[components]`` tells which stay, ``why`` the first reason of each.
    """

    graph: Graph
    coupler: Coupler
    component: np.ndarray
    count: int
    frozen: np.ndarray
    why: dict[int, Frozen]
    born: np.ndarray
    """bool ``[components]``: holds an output channel of some operator."""
    grids: Grids

    def __post_init__(self) -> None:
        self.labels: dict[Value, Labels | None] = self.coupler.labels

    @cached_property
    def removable(self) -> np.ndarray:
        """bool ``[components]``: can go, by itself or with a head or width it depends on."""
        derived = self.grids.derived
        free = ~self.frozen
        free[derived] = ~self.frozen[self.grids.parents[derived]].all(axis=1)
        return free

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Coupled channels of an array of labels."""
        found: np.ndarray = self.component[ids]
        return found

    def kept(self, alive: np.ndarray) -> Kept:
        """View of a decision ``alive`` (bool ``[components]``) for rewrites."""
        return Kept(alive[self.component])


def resolve(graph: Graph, c: Coupler, allow_inexact: bool) -> Coupling:
    """Follow the ties of one run to the end."""
    left = [p[0] for p in c.pairs]
    right = [p[1] for p in c.pairs]
    while True:
        count, component = _components(c.count, left, right)
        more_left, more_right = further_ties(c.products, component)
        if not more_left.size:
            break
        left.append(more_left)
        right.append(more_right)
    grids = Grids(parents_of(c.products, component, count))
    born = np.zeros(count, bool)
    for ids, _ in c.born:
        born[component[ids]] = True
    born[grids.parents[grids.derived & born].reshape(-1)] = True
    frozen = ~born
    frozen[0] = True
    why: dict[int, Frozen] = {}
    for event in c.frozen:
        if event.exact_only and allow_inexact:
            continue
        hit = grids.deciders(np.unique(component[event.ids]))
        frozen[hit] = True
        for channel in hit.tolist():
            why.setdefault(channel, event)
    for b in c.balances:  # equal counts over the elements of a grid: neither of its axes may lose any
        balanced = component[b.ids.reshape(-1)]
        frozen[grids.parents[balanced[grids.derived[balanced]]].reshape(-1)] = True
    stuck = np.flatnonzero(grids.derived & (component[0] == np.arange(count)))
    frozen[grids.parents[stuck].reshape(-1)] = True
    frozen[grids.derived] = True  # never decided by themselves
    return Coupling(graph, c, component, count, frozen, why, born, grids)


def _components(size: int, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> tuple[int, np.ndarray]:
    """Connected components of the ties; label 0 is in component 0."""
    rows = np.concatenate([np.zeros(0, np.int64), *left])
    columns = np.concatenate([np.zeros(0, np.int64), *right])
    links = coo_array((np.ones(rows.size, np.int8), (rows, columns)), shape=(size, size))
    count, component = connected_components(links, directed=False)
    if component[0] != 0:  # scipy numbers components by first member, but does not promise to
        component = np.where(component == component[0], 0, np.where(component == 0, component[0], component))
    return int(count), component
