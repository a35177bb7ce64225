"""Sets of coupled channels that may go together under count constraints.

A grouped convolution needs equally many channels in each of its groups, not the same positions. Given
scores, the channels of a pool are dealt into *bundles*: smallest sets whose removal keeps every
constraint balanced, cheapest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp

SOLVES = 50
"""Integer programs per halving of a pool."""


def bundles(channels: np.ndarray, scores: np.ndarray, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Deal ``channels`` into removable sets, in the order in which they should go.

    ``channels``: component numbers; ``scores``: their scores, same shape; ``rows``: for each constraint
    an int array ``[r, n]`` of component numbers whose rows must lose equally many (components outside
    ``channels`` stay). Without constraints every channel is a set of its own. Channels that no balanced
    set contains are left out. By rank within rows where one partition binds; where several cross, by
    perfect matching or, in general, integer programming over the cells of channels that all constraints
    treat alike.
    """
    matrix = _imbalance(channels, rows)
    if matrix.shape[0] == 0:
        return [channels[i : i + 1] for i in np.argsort(scores, kind="stable")]
    signature, cell = np.unique(matrix, axis=1, return_inverse=True)
    cell = cell.reshape(-1)
    queues = [_ranked(cell == k, scores) for k in range(signature.shape[1])]
    free = np.flatnonzero(~signature.any(axis=0))
    squares = _two_partitions(channels, rows)
    if squares is None:
        found = _deal(signature, queues, scores)
    else:
        found = _match(*squares, scores)
    singles = [[i] for k in free for i in queues[k]]
    ordered = sorted(singles + found, key=lambda members: float(np.mean(scores[members])))
    return [channels[members] for members in ordered]


def _ranked(mask: np.ndarray, scores: np.ndarray) -> list[int]:
    inside = np.flatnonzero(mask)
    return [int(i) for i in inside[np.argsort(scores[inside], kind="stable")]]


def _positions(channels: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Component number -> its index in ``channels``, -1 for those that stay."""
    position = np.full(int(max([channels.max(initial=0), *(r.max(initial=0) for r in rows)])) + 1, -1)
    position[channels] = np.arange(channels.size)
    return position


def _imbalance(channels: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """One line per pair (row, first row) of every constraint: difference in memberships ``[k, n]``."""
    position = _positions(channels, rows)
    lines: list[np.ndarray] = []
    for constraint in rows:
        counts = np.zeros((constraint.shape[0], channels.size), np.int64)
        for r, row in enumerate(constraint):
            inside = position[row]
            np.add.at(counts[r], inside[inside >= 0], 1)
        lines.append(counts[1:] - counts[:1])
    if not lines:
        return np.zeros((0, channels.size), np.int64)
    stacked = np.unique(np.concatenate(lines), axis=0)
    return stacked[stacked.any(axis=1)]


def _two_partitions(
    channels: np.ndarray, rows: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Row of every channel in each of (at most) two partitions, and their number of rows, else None."""
    position = _positions(channels, rows)
    found: dict[bytes, tuple[np.ndarray, int]] = {}
    for constraint in rows:
        row_of = np.full(channels.size, -1)
        inside = position[constraint]
        if np.count_nonzero(inside >= 0) != channels.size:
            return None
        for r, row in enumerate(inside):
            row_of[row[row >= 0]] = r
        if (row_of < 0).any():
            return None
        found.setdefault(row_of.tobytes(), (row_of, constraint.shape[0]))
    kinds = list(found.values())
    if len(kinds) > 2 or len({n for _, n in kinds}) != 1:
        return None
    return kinds[0][0], kinds[-1][0], kinds[0][1]


def _match(first: np.ndarray, second: np.ndarray, n: int, scores: np.ndarray) -> list[list[int]]:
    """One channel from every row of both partitions at a time: cheapest perfect matchings."""
    cells: list[list[deque[int]]] = [[deque() for _ in range(n)] for _ in range(n)]
    for i in np.argsort(scores, kind="stable").tolist():
        cells[first[i]][second[i]].append(i)
    none = float(np.abs(scores).sum()) + 1.0
    found: list[list[int]] = []
    while True:
        costs = np.array([[scores[cell[0]] if cell else none for cell in line] for line in cells])
        pairs = list(zip(*linear_sum_assignment(costs), strict=True))
        if any(not cells[a][b] for a, b in pairs):
            return found
        found.append([cells[a][b].popleft() for a, b in pairs])


def _deal(signature: np.ndarray, queues: list[list[int]], scores: np.ndarray) -> list[list[int]]:
    """Take minimal balanced sets, cheapest first, until none is left."""
    bound = np.flatnonzero(signature.any(axis=0))
    heads = np.zeros(len(queues), np.int64)
    found: list[list[int]] = []
    lines = signature[:, bound]
    while True:
        left = np.array([len(queues[k]) - heads[k] for k in bound])
        costs = np.array([_next(queues[k], heads[k], scores) for k in bound])
        take = _cheapest(lines, costs, left)
        if take is None:
            return found
        for _ in range(_copies(take, left)):
            members: list[int] = []
            for k, amount in zip(bound, take, strict=True):
                members += queues[k][heads[k] : heads[k] + amount]
                heads[k] += amount
            found.append(members)


def _copies(take: np.ndarray, left: np.ndarray) -> int:
    """Times to reuse a solution: each solve costs milliseconds, so a large pool gets a bounded number."""
    used = take > 0
    possible = int((left[used] // take[used]).min())
    return max(1, min(possible, int(left.sum() / take.sum()) // SOLVES))


def _next(queue: list[int], head: np.integer, scores: np.ndarray) -> float:
    return float(scores[queue[head]]) if head < len(queue) else 0.0


def _cheapest(lines: np.ndarray, costs: np.ndarray, left: np.ndarray) -> np.ndarray | None:
    """Least-cost non-empty integer vector with ``lines @ x == 0``, ``0 <= x <= left``; None if none."""
    if not left.any():
        return None
    # scores may be 0: a small constant keeps sets minimal
    objective = costs + 1e-3 * (1 + float(costs.mean()))
    constraints = [
        LinearConstraint(lines, 0, 0),
        LinearConstraint(np.ones((1, costs.size)), 1, np.inf),
    ]
    result = milp(objective, constraints=constraints, bounds=Bounds(0, left), integrality=np.ones(costs.size))
    if result.x is None:
        return None
    x: np.ndarray = np.rint(result.x).astype(np.int64)
    return x
