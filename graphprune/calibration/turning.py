"""Budgets by how far residual blocks turn what they are given: 1 - cos(in, out)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphprune.calibration.segments import Segment
from graphprune.calibration.statistics import Statistics
from graphprune.graph import Node
from graphprune.residuals import find_branches
from graphprune.selection import Pool

STRENGTH = 0.5
"""How much slower the most important layers go, and faster the least important: 1 would leave some whole."""

SAMPLES = 256


def turning(statistics: Statistics) -> dict[Node, float]:
    """1 - cosine between the input and the output of the residual block that a node is in (the smallest one)."""
    graph = statistics.analysis.graph
    branches = find_branches(graph, statistics.analysis.cost.macs_by_node(statistics.analysis.everything))
    given = [v.name for v in graph.inputs]
    names = dict.fromkeys(n for b in branches for n in (b.shortcut.name, b.value) if n not in given)
    totals, counts = np.zeros(len(branches)), np.zeros(len(branches))
    if not branches:
        return {}
    with Segment(statistics.model, given, list(names), {}) as part:
        for feed in statistics.first(SAMPLES):
            values = {**feed, **part.run(feed)}
            for i, b in enumerate(branches):
                turned = influence(values[b.shortcut.name], values[b.value])
                totals[i] += turned.sum()
                counts[i] += turned.size
    found: dict[Node, float] = {}
    for i in sorted(range(len(branches)), key=lambda i: -len(branches[i].nodes)):
        found.update(dict.fromkeys(branches[i].nodes, float(totals[i] / max(counts[i], 1))))
    return found


def by_turning(statistics: Statistics, pools: Sequence[Pool]) -> list[Pool]:
    """Pools ranked so that each loses a share that falls with its importance: ``share * (1 - STRENGTH * I)``.

    I is the mean of ``turning`` over the pool's producers, brought to mean 0 and at most 1 in size (Adapt-Pruner,
    arXiv:2502.03460, equation 3); pools outside of residual blocks have I = 0.
    """
    turned = turning(statistics)
    raw = [[turned[n] for g in p.groups for n in g.producers if n in turned] for p in pools]
    known = [float(np.mean(r)) for r in raw if r]
    centre = float(np.mean(known)) if known else 0.0
    size = max((abs(k - centre) for k in known), default=0.0) or 1.0
    found = []
    for pool, r in zip(pools, raw, strict=True):
        importance = (float(np.mean(r)) - centre) / size if r else 0.0
        speed = 1 - STRENGTH * importance
        found.append(replace(pool, steps=tuple(replace(s, key=s.share / speed) for s in pool.steps)))
    return found


def influence(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """1 - cosine of every pair of vectors, float64 ``[vectors]``; 1 where one of them is 0."""
    shape = (-1, before.shape[-1]) if before.ndim == 3 else (len(before) if before.ndim else 1, -1)
    a, b = (x.reshape(shape).astype(np.float64) for x in (before, after))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(1 - (a * b).sum(1) / np.maximum(norms, 1e-30))
