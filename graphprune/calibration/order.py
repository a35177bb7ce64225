"""Which channels matter least to those that read them: optimal brain surgery, summed over consumers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS = 48
"""Removals per ordering; channels go one by one where there are no more of them."""


@dataclass(eq=False)
class Reader:
    """One group of a contraction that reads channels.

    inverse: float64 ``[c, c]``, of the damped covariance; w: ``[c, o]``; channel: int ``[c]``, the channel that
    each column belongs to (-1: one that stays). scale: what its output energy is divided by.
    """

    inverse: np.ndarray
    w: np.ndarray
    channel: np.ndarray
    scale: float


def greedy_order(readers: list[Reader], channels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order in which ``channels`` go, and the loss after each: relative squared change, summed over readers.

    Every step removes what adds least, with the other columns refitted: loss ``tr(w_S' inv_SS^-1 w_S)``
    (Hassibi & Stork 1993; for structured sets SparseGPT, arXiv:2301.00774, and SPA, arXiv:2403.18955).
    """
    alive = np.ones(channels.size, bool)
    columns = [_columns(r, channels) for r in readers]
    order: list[int] = []
    losses: list[float] = []
    at_once = max(1, -(-channels.size // STEPS))
    total = 0.0
    while alive.any():
        scores = np.zeros(channels.size)
        for reader, found in zip(readers, columns, strict=True):
            scores += _losses(reader, found, alive) / reader.scale
        scores[~alive] = np.inf
        chosen = np.argsort(scores, kind="stable")[: min(at_once, int(alive.sum()))]
        alive[chosen] = False
        for c in chosen.tolist():
            total += float(scores[c])
            order.append(c)
            losses.append(total)
        if alive.any():
            for reader, found in zip(readers, columns, strict=True):
                _remove(reader, np.concatenate([found[c] for c in chosen.tolist()]))
    return channels[order], np.array(losses)


def _columns(reader: Reader, channels: np.ndarray) -> list[np.ndarray]:
    """Columns of every channel."""
    order = np.argsort(reader.channel, kind="stable")
    ids = reader.channel[order]
    first, last = np.searchsorted(ids, channels, "left"), np.searchsorted(ids, channels, "right")
    return [order[a:b] for a, b in zip(first, last, strict=True)]


def _losses(reader: Reader, columns: list[np.ndarray], alive: np.ndarray) -> np.ndarray:
    """What removing each channel alone costs now; channels of equally many columns are done at once."""
    found = np.zeros(len(columns))
    sizes = np.array([c.size for c in columns])
    for size in np.unique(sizes[alive]):
        if not size:
            continue
        which = np.flatnonzero(alive & (sizes == size))
        index = np.stack([columns[i] for i in which])
        inner = reader.inverse[index[:, :, None], index[:, None, :]]
        w = reader.w[index]
        found[which] = np.einsum("nko,nko->n", w, np.linalg.solve(inner, w))
    return found


def _remove(reader: Reader, gone: np.ndarray) -> None:
    """Eliminate columns: the others take over what they can."""
    if not gone.size:
        return
    inverse, w = reader.inverse, reader.w
    inner = inverse[np.ix_(gone, gone)]
    across = inverse[:, gone]
    solved = np.linalg.solve(inner, np.concatenate([across.T, w[gone]], axis=1))
    w -= across @ solved[:, inverse.shape[0] :]
    inverse -= across @ solved[:, : inverse.shape[0]]
    # eliminated columns must stay solvable and do no harm
    inverse[gone] = 0
    inverse[:, gone] = 0
    inverse[gone, gone] = 1
    w[gone] = 0
