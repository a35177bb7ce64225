"""FPGM: units near the geometric median of their tensor can be replaced by the others."""

from __future__ import annotations

import numpy as np

from graphprune.criteria.registry import UnitRows, criterion

_CHUNK = 1024
"""Rows of the distance matrix that are held at once."""


@criterion("fpgm", citation="He et al. 2019, arXiv:1811.00250, equation 6")
def fpgm(units: UnitRows) -> np.ndarray:
    """Mean distance of a unit's weights to those of all units of its tensor."""
    w = units.weights.astype(np.float64)
    if w.shape[1] == 1:
        return _on_a_line(w[:, 0])
    length = np.einsum("ij,ij->i", w, w)
    total = np.empty(len(w))
    for start in range(0, len(w), _CHUNK):
        part = slice(start, start + _CHUNK)
        squared = length[part, None] + length[None] - 2 * w[part] @ w.T
        total[part] = np.sqrt(np.maximum(squared, 0)).sum(axis=1)
    return total / len(w)


def _on_a_line(w: np.ndarray) -> np.ndarray:
    """Mean of ``|w_i - w_j|`` over j, in n log n."""
    order = np.argsort(w, kind="stable")
    ranked = w[order]
    below = np.arange(w.size)
    before = np.concatenate([[0.0], np.cumsum(ranked)[:-1]])
    after = ranked.sum() - before - ranked
    found = np.empty(w.size)
    found[order] = (below * ranked - before + after - (w.size - below - 1) * ranked) / w.size
    return found
