"""One contraction fitted to targets: its weights by least squares, or its mean and spread alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.calibration.moments import Moments, damping, solve, solve_within
from graphprune.calibration.pairs import Pair
from graphprune.calibration.views import View
from graphprune.graph import Node

STORED_BYTES = 400_000_000
"""Rows are held for repeated solves up to this size."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What a contraction sees and should give, batch by batch.

    x: ``[rows, groups, columns]``. y: ``[rows, outputs]``, what the original computes. there, here: ``[rows,
    outputs]``, what is added to it in the original and in the pruned model; None where nothing is.
    """

    x: Sequence[np.ndarray]
    y: Sequence[np.ndarray]
    there: Sequence[np.ndarray] | None = None
    here: Sequence[np.ndarray] | None = None


def fit_weights(pair: Pair, rows: Rows, ridge: float, iterations: int) -> dict[str, np.ndarray]:
    """New weights, and the new bias where there is one to change: name -> array.

    Least squares on ``rows`` with a ridge towards today's weights. What is added to the output is made up for:
    the sum of both shall be the original's. Where a ReLU follows, what it cuts off in the original need only stay
    below it: targets and weights are found in turn (``iterations`` solves).
    """
    view = pair.pruned
    width = pair.outputs.size // view.groups
    shape = (view.groups, width)
    slope, offset = activation(view)
    targets, cuts = _targets(rows, slope, offset)
    targets, cuts = [t.reshape(-1, *shape) for t in targets], [c.reshape(-1, *shape) for c in cuts]
    moments = Moments()
    moments.add_all(rows.x, targets)
    assert moments.y is not None
    assert moments.xy is not None
    centred = view.shift is not None
    mean_x = moments.x / moments.rows
    covariance = moments.covariance(centred=centred)
    stored = np.asarray(view.weight.value.array())
    pull = view.matrix(stored)
    support = None if pair.support is None else view.matrix(pair.support) > 0
    damp = damping(covariance, moments.rows, ridge)
    own = own_bias(view).reshape(shape)

    def solved(xy: np.ndarray, mean_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and shift; without a bias to change, the shift stays and is taken off the targets."""
        cross = xy - mean_x[:, :, None] * (mean_y if centred else own)[:, None, :]
        if support is None:
            w = solve(covariance, cross, pull, damp)
        else:
            w = solve_within(covariance, cross, pull, damp, support)
        return w, mean_y - np.einsum("gc,gco->go", mean_x, w) if centred else own

    w, shift = solved(moments.xy / moments.rows, moments.y / moments.rows)
    absorbs = rows.there is not None and rows.here is not None
    if pair.relu and (absorbs or not pair.added) and sum(a.nbytes for a in rows.x) < STORED_BYTES:
        x, y, cut = np.concatenate(rows.x), np.concatenate(targets), np.concatenate(cuts)
        rising = slope.reshape(shape) > 0
        off = np.where(rising, y <= cut, y >= cut) & (slope != 0).reshape(shape)
        for _ in range(iterations - 1):
            now = _product(x, w) + shift.astype(np.float32)
            free = np.where(rising, np.minimum(now, cut), np.maximum(now, cut))
            better = np.where(off, free, y)
            xy = np.matmul(x.transpose(1, 2, 0), better.transpose(1, 0, 2)) / len(x)
            w, shift = solved(xy.astype(np.float64), better.mean(0, dtype=np.float64))
    found = {view.name: view.tensor(w, stored.shape).astype(np.float32)}
    return found | _shifted(view, (shift - own).reshape(-1))


def fit_statistics(pair: Pair, rows: Rows) -> dict[str, np.ndarray]:
    """Weights stay; mean and spread of the output become the original's.

    A bias takes the change of the mean (FLAP's compensation, arXiv:2312.11983, with the inputs that the pruned
    network has). Where a BatchNormalization follows, its running mean and variance change instead, as if they had
    been estimated again.
    """
    view = pair.pruned
    w = view.matrix(np.asarray(view.weight.value.array()))
    own = own_bias(view)
    y = np.concatenate(list(rows.y)).astype(np.float64)
    now = np.concatenate([_product(x, w).reshape(len(x), -1) for x in rows.x]).astype(np.float64) + own
    change = y.mean(0) - now.mean(0)
    norm = batch_norm(view)
    if norm is None:
        return _shifted(view, change)
    mean, variance = norm.inputs[3], norm.inputs[4]
    assert mean is not None
    assert variance is not None
    ratio = (now.var(0) + 1e-12) / (y.var(0) + 1e-12)
    centre = now.mean(0) - (y.mean(0) - mean.array()) * np.sqrt(ratio)
    arrays = {mean.name: centre, variance.name: variance.array() * ratio}
    return {n: np.asarray(a, np.float32) for n, a in arrays.items()}


def own_bias(view: View) -> np.ndarray:
    """What the contraction itself adds, float64 ``[outputs]``."""
    bias = view.node.input(2) if view.node.op in ("Conv", "Gemm") else None
    width = view.weight.shape[view.weight.out_axis]
    if bias is None or not bias.constant:
        return np.zeros(width)
    return np.broadcast_to(bias.array().astype(np.float64).reshape(-1), (width,))


def activation(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of the BatchNormalization after the contraction, float64 ``[outputs]``; 1 and 0 without."""
    width = view.weight.shape[view.weight.out_axis]
    norm = batch_norm(view)
    if norm is None:
        return np.ones(width), np.zeros(width)
    scale, beta, mean, variance = (
        np.asarray(v.array(), np.float64) for v in norm.inputs[1:5] if v is not None
    )
    slope = scale / np.sqrt(variance + norm.attr("epsilon", 1e-5))
    return slope, beta - mean * slope


def batch_norm(view: View) -> Node | None:
    """The BatchNormalization that alone reads the contraction, with stored statistics of its own."""
    value = view.output
    if value.is_output or len(value.consumers) != 1:
        return None
    node = value.consumers[0]
    own = node.op == "BatchNormalization" and all(
        v is not None and v.stored and v.consumers == [node] for v in node.inputs[1:5]
    )
    return node if own else None


def _targets(rows: Rows, slope: np.ndarray, offset: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What the contraction should give, and where a ReLU behind it would cut, batch by batch; float32."""
    safe = np.where(slope == 0, 1, slope)
    zero = (-offset / safe).astype(np.float32)
    if rows.there is None or rows.here is None:
        return list(rows.y), [np.broadcast_to(zero, y.shape) for y in rows.y]
    scale = safe.astype(np.float32)
    parts = list(zip(rows.y, rows.there, rows.here, strict=True))
    return [y + (a - b) / scale for y, a, b in parts], [zero - b / scale for _, _, b in parts]


def _product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """``[rows, groups, outputs]``, float32."""
    found = np.matmul(x.transpose(1, 0, 2), w.astype(np.float32))
    return np.asarray(found.transpose(1, 0, 2))


def _shifted(view: View, change: np.ndarray) -> dict[str, np.ndarray]:
    """The bias after a change of the contraction's output by ``change`` ``[outputs]``."""
    if view.shift is None:
        return {}
    old = np.asarray(view.shift.value.array())
    new = old + (change * view.shift.factor).reshape(old.shape)
    return {view.shift.value.name: new.astype(np.float32)}
