"""Sets of coupled channels that may go together under count constraints.

A grouped convolution needs equally many channels in each of its groups, not the same positions. Given
scores, the channels of a pool are dealt into *bundles*: smallest sets whose removal keeps every
constraint balanced, cheapest first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp


def bundles(channels: np.ndarray, scores: np.ndarray, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Deal ``channels`` into removable sets, in the order in which they should go.

    ``channels``: component numbers; ``scores``: their scores, same shape; ``rows``: for each constraint
    an int array ``[r, n]`` of component numbers whose rows must lose equally many (components outside
    ``channels`` stay). Without constraints every channel is a set of its own. Channels that no balanced
    set contains are left out. By rank within rows where one partition binds; where several cross, by
    integer programming over the cells of channels that all constraints treat alike.
    """
    matrix = _imbalance(channels, rows)
    if matrix.shape[0] == 0:
        return [channels[i : i + 1] for i in np.argsort(scores, kind="stable")]
    signature, cell = np.unique(matrix, axis=1, return_inverse=True)
    cell = cell.reshape(-1)
    queues = [_ranked(cell == k, scores) for k in range(signature.shape[1])]
    free = np.flatnonzero(~signature.any(axis=0))
    found = _deal(signature, queues, scores)
    singles = [channels[[i]] for k in free for i in queues[k]]
    bound = [channels[np.array(b)] for b in found]
    position = {int(channel): i for i, channel in enumerate(channels)}

    def mean_score(b: np.ndarray) -> float:
        return float(np.mean([scores[position[int(x)]] for x in b]))

    return sorted(singles + bound, key=mean_score)


def _ranked(mask: np.ndarray, scores: np.ndarray) -> list[int]:
    inside = np.flatnonzero(mask)
    return [int(i) for i in inside[np.argsort(scores[inside], kind="stable")]]


def _imbalance(channels: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """One line per pair (row, first row) of every constraint: difference in memberships ``[k, n]``."""
    position = np.full(int(max([channels.max(initial=0), *(r.max(initial=0) for r in rows)])) + 1, -1)
    position[channels] = np.arange(channels.size)
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


def _deal(signature: np.ndarray, queues: list[list[int]], scores: np.ndarray) -> list[list[int]]:
    """Take minimal balanced sets, cheapest first, until none is left."""
    bound = np.flatnonzero(signature.any(axis=0))
    heads = np.zeros(len(queues), np.int64)
    found: list[list[int]] = []
    lines = signature[:, bound]
    take: np.ndarray | None = None
    while True:
        left = np.array([len(queues[k]) - heads[k] for k in bound])
        costs = np.array([_next(queues[k], heads[k], scores) for k in bound])
        if take is None or len(bound) > lines.shape[0] + 1 or np.any(take > left):
            take = _cheapest(lines, costs, left)
        if take is None:
            return found
        members: list[int] = []
        for k, amount in zip(bound, take, strict=True):
            members += queues[k][heads[k] : heads[k] + amount]
            heads[k] += amount
        found.append(members)


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
