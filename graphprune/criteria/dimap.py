"""DIMAP: LAMP over whole modules (attention, MLP) rather than single tensors."""

from __future__ import annotations

import numpy as np

from graphprune.allocation import lamp_scores
from graphprune.contractions import contraction_weights
from graphprune.criteria.registry import UnitRows, channel_criterion
from graphprune.criteria.scoring import mean_over_slices, slice_scores
from graphprune.graph import Node
from graphprune.groups import Groups
from graphprune.residuals import find_branches


@channel_criterion("dimap", citation="He & Zhou 2024, arXiv:2404.13648; here a module is a residual branch")
def dimap(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """Square of a channel's norm over the sum of those no smaller in its module; mean over its modules.

    The channels that the contractions of a residual branch make compete; outside of branches each contraction is a
    module of its own. Channels that no contraction makes have their relative magnitudes.
    """
    coupling = groups.coupling
    module = _modules(coupling.graph.nodes, groups)
    by_tensor = {w.value: w for w in contraction_weights(coupling.graph)}
    found: dict[Node, list[tuple[np.ndarray, np.ndarray]]] = {}
    for s in coupling.coupler.slices:
        weight = by_tensor.get(s.tensor)
        if weight is None or s.rows > 1 or s.axis != weight.out_axis:
            continue
        squares = slice_scores(np.asarray(s.tensor.array(), np.float32), s, _mean_square, rng)
        found.setdefault(module.get(weight.node, weight.node), []).append((coupling.of(s.ids), squares))
    total, count = np.zeros(coupling.count), np.zeros(coupling.count)
    for parts in found.values():
        channels = np.concatenate([c for c, _ in parts])
        np.add.at(total, channels, lamp_scores(np.concatenate([q for _, q in parts])))
        np.add.at(count, channels, 1)
    return np.where(count > 0, total / np.maximum(count, 1), mean_over_slices(groups))


def _mean_square(units: UnitRows) -> np.ndarray:
    """So that layers of different widths compare."""
    return np.asarray(np.square(units.weights, dtype=np.float64).sum(1) / units.sizes)


def _modules(nodes: list[Node], groups: Groups) -> dict[Node, Node]:
    """Node -> the sum at the end of the smallest residual branch that it is in."""
    works = {w.node: 1 for w in groups.coupling.coupler.works}
    branches = find_branches(groups.coupling.graph, works)
    found: dict[Node, Node] = {}
    for branch in sorted(branches, key=lambda b: -len(b.nodes)):
        found.update(dict.fromkeys(branch.nodes, branch.add))
    return {n: found[n] for n in nodes if n in found}
