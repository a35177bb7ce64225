"""Groups: the coupled channels that arise from the same dimension, with what one of them carries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune.coupling import Coupling
from graphprune.graph import Node, Value
from graphprune.records import Slice

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True)
class Member:
    """Where a group touches a stored tensor: ``size`` indices of ``tensor`` along ``axis``."""

    tensor: str
    axis: int
    size: int


@dataclass(frozen=True, eq=False)
class Group:
    """Coupled channels of one dimension.

    ``channels`` and ``frozen`` are component numbers, in the order of the dimension. ``producers`` are
    the nodes whose output channels these are, ``weights`` the tensors whose rows make them.
    """

    id: int
    channels: np.ndarray
    frozen: np.ndarray
    producers: tuple[Node, ...]
    weights: tuple[str, ...]
    members: tuple[Member, ...]
    reason: str
    params: int
    macs: int

    @property
    def prunable(self) -> bool:
        """Whether any channel may go."""
        return self.channels.size > 0

    @property
    def width(self) -> int:
        """Coupled channels, frozen ones included."""
        return int(self.channels.size + self.frozen.size)

    @property
    def name(self) -> str:
        """The first producer's name."""
        return self.producers[0].name if self.producers else f"group {self.id}"


@dataclass(eq=False)
class Groups:
    """Every group of a model; indexable, and as a networkx graph."""

    coupling: Coupling
    items: list[Group]
    group_of: np.ndarray
    """int ``[components]``: the group of a coupled channel, -1 for none."""
    producers: np.ndarray
    """int ``[components]``: producer filters that a coupled channel counts as."""

    @cached_property
    def weights(self) -> np.ndarray:
        """int ``[components]``: ``producers``, with those of a grid counted at its heads and its widths."""
        weights = self.producers.copy()
        derived = self.coupling.grids.derived
        for side in (0, 1):
            np.add.at(weights, self.coupling.grids.parents[derived, side], self.producers[derived])
        return weights

    def __iter__(self) -> Iterator[Group]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Group:
        return self.items[index]

    @cached_property
    def networkx(self) -> networkx.Graph:
        """Group-level graph: nodes are group ids; an edge joins two groups that share a stored tensor."""
        import networkx

        graph = networkx.Graph()
        for group in self.items:
            graph.add_node(
                group.id,
                name=group.name,
                channels=int(group.channels.size),
                prunable=group.prunable,
                reason=group.reason,
            )
        touched: dict[str, list[int]] = {}
        for group in self.items:
            for member in group.members:
                touched.setdefault(member.tensor, []).append(group.id)
        for tensor, ids in touched.items():
            for a in ids:
                for b in ids:
                    if a < b:
                        graph.add_edge(a, b, tensor=tensor)
        return graph


def counts_as_parameters(value: Value) -> bool:
    """Stored tensors that count: floating point and quantised ones, not shape arithmetic."""
    if not value.stored or value.dtype in ("int64", "int32", "bool", "string", ""):
        return False
    return not value.consumers or not all(
        node.outputs and all(o.stored for o in node.outputs) for node in value.consumers
    )


def find_groups(coupling: Coupling) -> Groups:
    """Collect coupled channels into groups; one per dimension, in the order of the graph."""
    dims = _dimensions(coupling)
    component = [np.unique(d.channels) for d in dims]
    group_of_dim = _join(component, coupling.count)
    group_of = np.full(coupling.count, -1)
    order: dict[int, list[int]] = {}
    for dim, g in enumerate(group_of_dim.tolist()):
        order.setdefault(g, []).append(dim)
    for position, dim_ids in enumerate(order.values()):
        inside = np.concatenate([component[d] for d in dim_ids])
        group_of[inside[inside > 0]] = position
    made_by = {s.ids.tobytes(): s.tensor.name for s in coupling.coupler.slices if s.rows == 1}
    counts = [(s, _count(coupling, s.ids, group_of, len(order))) for s in coupling.coupler.slices]
    members = _members(counts, len(order))
    shares = _shares(coupling, counts, group_of, len(order))
    items = []
    for i, dim_ids in enumerate(order.values()):
        found = np.concatenate([dims[d].channels for d in dim_ids])
        unique, first = np.unique(found, return_index=True)
        ordered = unique[np.argsort(first)]
        frozen = ordered[coupling.frozen[ordered]]
        items.append(
            Group(
                id=i,
                channels=ordered[~coupling.frozen[ordered]],
                frozen=frozen,
                producers=tuple(dict.fromkeys(dims[d].node for d in dim_ids)),
                weights=tuple(made_by[dims[d].key] for d in dim_ids if dims[d].key in made_by),
                members=tuple(members[i]),
                reason=_reason(coupling, frozen),
                params=shares[0][i],
                macs=shares[1][i],
            )
        )
    return Groups(coupling, items, group_of, _producers(coupling))


@dataclass(frozen=True, eq=False)
class _Dimension:
    """Channels that one operator makes; ``key`` identifies the label vector they come from."""

    channels: np.ndarray
    node: Node
    key: bytes


def _dimensions(coupling: Coupling) -> list[_Dimension]:
    """Distinct label vectors that operators declared channels, with the first such operator.

    A grid of heads and widths is two dimensions.
    """
    grids = coupling.grids
    found: dict[bytes, list[_Dimension]] = {}
    for ids, node in coupling.coupler.born:
        key = ids.tobytes()
        if key in found:
            continue
        channels = coupling.of(ids).reshape(-1)
        derived = grids.derived[channels]
        parts = [channels[~derived], *(grids.parents[channels[derived], side] for side in (0, 1))]
        found[key] = [_Dimension(part, node, key) for part in parts if part.size]
    return [d for parts in found.values() for d in parts]


def _producers(coupling: Coupling) -> np.ndarray:
    """Producer filters of every component."""
    producers = np.zeros(coupling.count, np.int64)
    if coupling.coupler.born:
        every = np.unique(np.concatenate([ids.reshape(-1) for ids, _ in coupling.coupler.born]))
        np.add.at(producers, coupling.of(every), 1)
    return producers


def _join(component: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Dimensions that share a coupled channel get one number."""
    if not component:
        return np.zeros(0, np.int64)
    dim = np.repeat(np.arange(len(component)), [c.size for c in component])
    channel = np.concatenate(component)
    real = channel > 0
    size = len(component) + count
    links = coo_array(
        (np.ones(int(real.sum()), np.int8), (dim[real], channel[real] + len(component))), shape=(size, size)
    )
    _, label = connected_components(links, directed=False)
    joined: np.ndarray = label[: len(component)]
    return joined


def _count(coupling: Coupling, ids: np.ndarray, group_of: np.ndarray, n: int) -> np.ndarray:
    """Positions of ``ids`` in each group; an element of a grid is in both of its groups."""
    channels = coupling.of(ids).reshape(-1)
    derived = coupling.grids.derived[channels]
    if derived.any():
        channels = np.concatenate([channels[~derived], coupling.grids.parents[channels[derived]].reshape(-1)])
    groups = group_of[channels]
    counts: np.ndarray = np.bincount(groups[groups >= 0], minlength=n)
    return counts


Counts = Sequence[tuple[Slice, np.ndarray]]
"""Every slice with the positions that each group has in it."""


def _members(counts: Counts, n: int) -> list[list[Member]]:
    members: list[list[Member]] = [[] for _ in range(n)]
    for s, inside in counts:
        for g in np.flatnonzero(inside):
            members[g].append(Member(s.tensor.name, s.axis, int(inside[g])))
    return members


def _shares(coupling: Coupling, counts: Counts, group_of: np.ndarray, n: int) -> tuple[list[int], list[int]]:
    """Parameters and MACs that disappear when a whole group does (others untouched)."""
    params, macs = np.zeros(n), np.zeros(n)
    for s, inside in counts:
        if counts_as_parameters(s.tensor):
            params += inside * (s.tensor.size / s.ids.size)
    for work in coupling.coupler.works:
        total = work.coefficient * float(np.prod([v.size for v in work.vectors], dtype=np.float64))
        for vector in work.vectors:
            macs += _count(coupling, vector, group_of, n) * (total / vector.size)
    return [round(p) for p in params], [round(m) for m in macs]


def _reason(coupling: Coupling, frozen: np.ndarray) -> str:
    """The first reason among a group's frozen channels, with the operator it comes from."""
    for channel in frozen.tolist():
        event = coupling.why.get(channel)
        if event is not None:
            return event.sentence
    return ""
