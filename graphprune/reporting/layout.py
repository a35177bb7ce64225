"""Positions for the nodes of a directed graph: layers by longest path, order by barycentres (Sugiyama et al. 1981).

The same graph always gets the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 6
"""Passes down and up over the layers, for the order and again for the places."""

MAX_BENDS = 20_000
"""Places that long edges may take up; beyond it they are drawn straight."""

BEND_WIDTH = 0.5
"""What a long edge takes of the room of a node."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Where things lie, in units of one layer and of one node beside another.

    points: for every node (layer, place within the layer). routes: for every edge the points it passes between its
    two ends.
    """

    points: list[Point]
    routes: list[list[Point]]


def layered(count: int, edges: Sequence[tuple[int, int]]) -> Layout:
    """Lay out nodes ``0 .. count - 1``; every edge goes from a lower number to a higher one.

    Raises ValueError for an edge that does not.
    """
    if any(not 0 <= a < b < count for a, b in edges):
        raise ValueError("edges go from a node to one with a higher number")
    layer = _layers(count, edges)
    bends = [layer[b] - layer[a] - 1 for a, b in edges]
    bend = sum(bends) <= MAX_BENDS
    chains: list[list[int]] = []
    for (a, b), between in zip(edges, bends, strict=True):
        inside = list(range(len(layer), len(layer) + between)) if bend else []
        layer.extend(range(layer[a] + 1, layer[b]) if bend else ())
        chains.append([a, *inside, b])
    above: list[list[int]] = [[] for _ in layer]
    below: list[list[int]] = [[] for _ in layer]
    for chain in chains:
        for a, b in pairwise(chain):
            below[a].append(b)
            above[b].append(a)
    rows: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for node, at in enumerate(layer):
        rows[at].append(node)
    _order(rows, above, below)
    place = _places(rows, above, below, count)
    points = [(float(x), round(y, 2)) for x, y in zip(layer, place, strict=True)]
    return Layout(points[:count], [_route([points[n] for n in chain]) for chain in chains])


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest path to every node; one without any before it stands right before the first that reads it."""
    layer = [0] * count
    first = [count] * count
    has_source = [False] * count
    for a, b in sorted(edges, key=lambda edge: edge[1]):
        layer[b] = max(layer[b], layer[a] + 1)
        has_source[b] = True
    for a, b in edges:
        first[a] = min(first[a], layer[b])
    return [at if has_source[n] or first[n] == count else max(first[n] - 1, 0) for n, at in enumerate(layer)]


def _order(rows: list[list[int]], above: list[list[int]], below: list[list[int]]) -> None:
    """Sort every row by the mean position of the neighbours in the row before, then after, several times."""
    position = [0.0] * len(above)

    def number(row: list[int]) -> None:
        for i, node in enumerate(row):
            position[node] = float(i)

    for row in rows:
        number(row)
    for sweep in range(SWEEPS):
        neighbours, walk = (above, rows) if sweep % 2 == 0 else (below, rows[::-1])
        for row in walk:
            keys = {n: _mean([position[m] for m in neighbours[n]], position[n]) for n in row}
            row.sort(key=lambda n: (keys[n], position[n]))
            number(row)


def _places(rows: list[list[int]], above: list[list[int]], below: list[list[int]], nodes: int) -> list[float]:
    """Places in every row that keep its order and a distance, as near to the neighbours' as they can be."""
    place = [0.0] * len(above)
    for sweep in range(2 * SWEEPS):
        neighbours, walk = (above, rows) if sweep % 2 == 0 else (below, rows[::-1])
        for row in walk:
            offsets = [0.0]
            for a, b in pairwise(row):
                offsets.append(offsets[-1] + (_width(a, nodes) + _width(b, nodes)) / 2)
            wanted = [_mean([place[m] for m in neighbours[n]], place[n]) for n in row]
            weights = [1.0 if n < nodes else 4.0 for n in row]
            moved = _increasing([w - o for w, o in zip(wanted, offsets, strict=True)], weights)
            for node, base, offset in zip(row, moved, offsets, strict=True):
                place[node] = base + offset
    lowest = min(place, default=0.0)
    return [p - lowest for p in place]


def _increasing(wanted: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls, by weighted squares (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(wanted, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            before = pools.pop()
            total = before[1] + pool[1]
            pool = ((before[0] * before[1] + pool[0] * pool[1]) / total, total, before[2] + pool[2])
        pools.append(pool)
    return [value for value, _, size in pools for _ in range(size)]


def _width(node: int, nodes: int) -> float:
    return 1.0 if node < nodes else BEND_WIDTH


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _route(points: Sequence[Point]) -> list[Point]:
    """The inner points of a path at which it turns."""
    return [
        here
        for before, here, after in zip(points, points[1:], points[2:], strict=False)
        if abs((before[1] + after[1]) / 2 - here[1]) > 0.02
    ]
