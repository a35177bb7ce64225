"""Magnitude: how large a channel's weights are, next to the other channels of the same tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphprune.criteria.registry import criterion
from graphprune.graph import Value
from graphprune.groups import Groups
from graphprune.records import Slice

Reduce = Callable[[np.ndarray, int], np.ndarray]


@criterion("magnitude", weights=lambda w, rng: np.square(w))
def magnitude(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """L2 norm over all slices of a coupled channel, each relative to its tensor's mean (the default).

    For every weight slice (producers and consumers; tensors of rank 2 and more) the L2 norm of each
    index is divided by the mean norm over that axis, and a channel's score is the mean over its slices.
    A layer's scale and size cancel, so that one threshold serves all groups.
    """
    return relative_norms(groups)


@criterion("magnitude-l1", weights=lambda w, rng: np.abs(w))
def magnitude_l1(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """As magnitude, with L1 norms (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""
    return relative_norms(groups, norm=_l1)


def _l2(w: np.ndarray, axis: int) -> np.ndarray:
    flat = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    norm: np.ndarray = np.sqrt(np.einsum("ij,ij->i", flat, flat, dtype=np.float64))
    return norm


def _l1(w: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(a for a in range(w.ndim) if a != axis)
    norm: np.ndarray = np.abs(w).sum(axis=others, dtype=np.float64)
    return norm


def relative_norms(
    groups: Groups, read: Callable[[Value], np.ndarray] | None = None, norm: Reduce = _l2
) -> np.ndarray:
    """The score of ``magnitude``, float ``[components]``; ``read`` gives a tensor's data (default: stored)."""
    read = read or Value.array
    coupling = groups.coupling
    total, slices = np.zeros(coupling.count), np.zeros(coupling.count)
    by_tensor: dict[Value, list[Slice]] = {}
    for s in coupling.coupler.slices:
        if coupling.removable[coupling.of(s.ids)].any():
            by_tensor.setdefault(s.tensor, []).append(s)
    ranked = sorted(by_tensor.items(), key=lambda item: item[0].rank < 2)
    for tensor, found in ranked:
        w: np.ndarray | None = None
        for s in found:
            channels = coupling.of(s.ids)
            if tensor.rank < 2 and slices[channels[coupling.removable[channels]]].all():
                continue  # biases and the like count only where a channel has no weight of its own
            if w is None:
                w = np.asarray(read(tensor)).astype(np.float32)
            norms = row_norms(w, s, norm)
            mean = norms.mean()
            np.add.at(total, channels, norms / mean if mean > 0 else np.ones_like(norms))
            np.add.at(slices, channels, 1)
    return total / np.maximum(slices, 1)


def row_norms(w: np.ndarray, s: Slice, norm: Reduce = _l2) -> np.ndarray:
    """Norms of a tensor's indices along a slice, in the shape of ``s.ids``."""
    if s.rows == 1:
        return norm(w, s.axis)
    return np.stack([norm(block, s.axis) for block in np.split(w, s.rows, axis=0)])
