"""A criterion over the units of a structure: coupled channels, weight blocks, single weights of N:M groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphprune.blocking import Blocking
from graphprune.criteria.magnitude import magnitude
from graphprune.criteria.registry import Criterion, UnitRows, UnitScore
from graphprune.errors import OptionError
from graphprune.graph import Value
from graphprune.groups import Groups
from graphprune.records import Slice

Read = Callable[[Value], np.ndarray]


def channel_scores(groups: Groups, criterion: Criterion, rng: np.random.Generator) -> np.ndarray:
    """Float ``[components]``: what ``criterion`` says of every coupled channel."""
    if criterion.channels is not None:
        return criterion.channels(groups, rng)
    assert criterion.units is not None
    return mean_over_slices(groups, criterion.units, rng, relative=criterion.relative)


def block_scores(
    blocking: Blocking, criterion: Criterion, rng: np.random.Generator, read: Read = Value.array
) -> np.ndarray:
    """Float ``[blocks]``, over all blocks of all weights. Raises OptionError for a criterion of channels only."""
    score = unit_score(criterion, "block")
    found = [
        score(UnitRows(b.rows(np.asarray(read(b.weight.value), np.float32)), b.sizes(), rng))
        for b in blocking.blocked
    ]
    return np.concatenate(found)


def weight_scores(weights: np.ndarray, criterion: Criterion, rng: np.random.Generator) -> np.ndarray:
    """Every weight by itself, the shape of ``weights``. Raises OptionError for a criterion of channels only."""
    score = unit_score(criterion, "nm")
    rows = UnitRows(weights.reshape(-1, 1), np.ones(weights.size, np.int64), rng)
    return score(rows).reshape(weights.shape)


def unit_score(criterion: Criterion, structure: str) -> UnitScore:
    """The function over units. Raises OptionError where the criterion is for whole channels."""
    if criterion.units is None:
        raise OptionError(
            f"--method {criterion.name} scores whole channels: with --structure {structure} use magnitude"
        )
    return criterion.units


def mean_over_slices(
    groups: Groups,
    score: UnitScore = magnitude,
    rng: np.random.Generator | None = None,
    *,
    read: Read = Value.array,
    relative: bool = True,
) -> np.ndarray:
    """Mean of ``score`` over all slices of a coupled channel: float ``[components]``.

    Slices are those of weights, producers' and consumers' (tensors of rank 2 and more); biases and the like
    count only where a channel has no weight of its own. ``relative``: every slice's scores are divided by
    their mean, so that a layer's scale and size cancel and one threshold serves all groups.
    """
    rng = rng or np.random.default_rng(0)
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
                continue
            if w is None:
                w = np.asarray(read(tensor)).astype(np.float32, copy=False)
            scores = slice_scores(w, s, score, rng)
            mean = scores.mean() if relative else 1.0
            np.add.at(total, channels, scores / mean if mean > 0 else np.ones_like(scores))
            np.add.at(slices, channels, 1)
    return total / np.maximum(slices, 1)


def slice_scores(
    w: np.ndarray, s: Slice, score: UnitScore = magnitude, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Scores of a tensor's indices along a slice, in the shape of ``s.ids``."""
    rng = rng or np.random.default_rng(0)
    parts = [w] if s.rows == 1 else np.split(w, s.rows, axis=0)
    found = [_along(part, s.axis, score, rng) for part in parts]
    return found[0] if s.rows == 1 else np.stack(found)


def _along(w: np.ndarray, axis: int, score: UnitScore, rng: np.random.Generator) -> np.ndarray:
    rows = np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    return score(UnitRows(rows, np.full(len(rows), rows.shape[1]), rng))
