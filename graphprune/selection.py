"""Scores -> the order in which channels may go: pools of groups, cut into aligned steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graphprune.balance import bundles
from graphprune.groups import Group, Groups

Rule = tuple[tuple[int, int], ...]
"""(from this width, kept counts are a multiple of this), widest first."""

DEFAULT_RULE: Rule = ((64, 16), (32, 8))


@dataclass(frozen=True, eq=False)
class Step:
    """Channels that go at once; a pool's steps go in order.

    ``key`` is the rank among all steps, ``share`` the part of the pool's producers gone after it.
    """

    pool: int
    channels: np.ndarray
    key: float
    share: float


@dataclass(frozen=True, eq=False)
class Pool:
    """Groups that count constraints bind together, with their steps."""

    groups: tuple[Group, ...]
    steps: tuple[Step, ...]


def without(alive: np.ndarray, steps: Iterable[Step]) -> np.ndarray:
    """``alive`` (bool ``[components]``, left as it is) after ``steps``."""
    alive = alive.copy()
    for step in steps:
        alive[step.channels] = False
    return alive


def alignment(width: int, multiple_of: int | None, rule: Rule = DEFAULT_RULE) -> int:
    """Channels kept are a multiple of this; None is automatic, as ``rule`` says."""
    if multiple_of is not None:
        return multiple_of
    return next((multiple for least, multiple in rule if width >= least), 1)


def build_pools(
    groups: Groups,
    scores: np.ndarray,
    *,
    movable: np.ndarray,
    multiple_of: int | None = None,
    min_channels: int = 1,
    rule: Rule = DEFAULT_RULE,
) -> list[Pool]:
    """Order every removable channel.

    ``scores`` and ``movable`` (bool) are per component; low scores go first (criteria: ``Grids.spread`` first,
    so that heads and widths have the scores of their elements). Every tracked axis of every
    tensor keeps at least ``min_channels`` positions (all of them where it has fewer).
    """
    movable = movable & ~protected(groups, scores, movable, min_channels)
    rows = [groups.coupling.of(b.ids) for b in groups.coupling.coupler.balances]
    pools = []
    for number, members in enumerate(_bound_groups(groups, rows)):
        every = np.concatenate([g.channels for g in members])
        channels = every[movable[every]]
        inside = [r for r in rows if np.isin(r, every).any()]
        sets = bundles(channels, scores[channels], inside) if channels.size else []
        total = int(groups.weights[every].sum())
        pools.append(
            Pool(
                tuple(members),
                tuple(_steps(number, groups, members, sets, scores, total, multiple_of, rule)),
            )
        )
    return pools


def _bound_groups(groups: Groups, rows: list[np.ndarray]) -> Iterable[list[Group]]:
    """Prunable groups, those that share a constraint together."""
    count = len(groups)
    left: list[int] = []
    right: list[int] = []
    for r in rows:
        found = np.unique(groups.group_of[r])
        found = found[found >= 0]
        left += found[:-1].tolist()
        right += found[1:].tolist()
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    _, label = connected_components(links, directed=False)
    pools: dict[int, list[Group]] = {}
    for group in groups:
        if group.prunable:
            pools.setdefault(int(label[group.id]), []).append(group)
    return pools.values()


def _steps(
    number: int,
    groups: Groups,
    members: list[Group],
    sets: list[np.ndarray],
    scores: np.ndarray,
    total: int,
    multiple_of: int | None,
    rule: Rule,
) -> list[Step]:
    """Cut the ordered sets where the group's kept count is aligned.

    Groups that constraints bind together lose channels in fixed proportions, which no alignment of each
    would survive: their steps are single sets.
    """
    if not sets:
        return []
    aligned = np.ones(len(sets), bool)
    if len(members) == 1:
        gone = np.cumsum([s.size for s in sets])
        width = members[0].width
        aligned = (width - gone) % alignment(width, multiple_of, rule) == 0
        if multiple_of is None:  # automatic alignment is a preference: it never blocks a budget
            aligned[np.flatnonzero(aligned)[-1] + 1 if aligned.any() else 0 :] = True
    steps: list[Step] = []
    start, key, removed = 0, float("-inf"), 0
    for end in (np.flatnonzero(aligned) + 1).tolist():
        channels = np.concatenate(sets[start:end])
        removed += int(groups.weights[channels].sum())
        key = max(key, float(scores[channels].mean()))
        steps.append(Step(number, channels, key, removed / total))
        start = end
    return steps


def protected(groups: Groups, scores: np.ndarray, movable: np.ndarray, min_channels: int) -> np.ndarray:
    """The best channels of every axis, so that no axis is emptied: bool ``[components]``."""
    found = np.zeros(movable.size, bool)
    for channels in _axes(groups, min_channels):
        stays = ~movable[channels] | found[channels]
        missing = min(min_channels, channels.size) - int(np.count_nonzero(stays))
        if missing > 0:
            free = channels[~stays]
            best = free[np.argsort(-scores[free], kind="stable")[:missing]]
            found[best] = True
    return found


def _axes(groups: Groups, least: int) -> list[np.ndarray]:
    """Distinct sets of coupled channels along axes of tensors with fewer than ``least`` frozen ones."""
    coupling = groups.coupling
    found: dict[bytes, np.ndarray] = {}

    def add(channels: np.ndarray) -> None:
        derived = coupling.grids.derived[channels]
        if derived.all():  # a grid is empty when it has no row or no column
            sides = [np.unique(coupling.grids.parents[channels, side]) for side in (0, 1)]
        else:
            sides = [channels[~derived]]
        for side in sides:
            if coupling.frozen[side].sum() < least:
                found.setdefault(side.tobytes(), side)

    # A position of an axis stays while anything in it does, so an axis is empty only when its term is.
    terms = {id(t): t for x in coupling.labels.values() if x is not None for t in x.terms}
    for term in terms.values():
        add(np.unique(coupling.of(term)))
    for s in coupling.coupler.slices:
        for row in np.atleast_2d(coupling.of(s.ids)):
            add(np.unique(row))
    for b in coupling.coupler.balances:
        for row in coupling.of(b.ids):
            add(np.unique(row))
    return sorted(found.values(), key=lambda v: v.size)
