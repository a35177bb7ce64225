"""Optimal brain surgeon: the loss that is left once the other weights have been refitted."""

from __future__ import annotations

import numpy as np

from graphprune.calibration.criteria.registry import DataCriterion, data_criterion
from graphprune.calibration.moments import Moments, damping
from graphprune.calibration.order import greedy_order
from graphprune.calibration.statistics import Statistics
from graphprune.calibration.views import View
from graphprune.choosing import pools_of


def obs_weights(view: View, w: np.ndarray, moments: Moments, ridge: float) -> np.ndarray:
    """``|w| / sqrt([H^-1]_cc)`` with H the damped covariance of the inputs (SparseGPT, arXiv:2301.00774)."""
    covariance = moments.covariance(centred=view.shift is not None)
    inverse = np.linalg.inv(
        covariance + damping(covariance, moments.rows, ridge) * np.eye(covariance.shape[-1])
    )
    return np.asarray(np.abs(w) / np.sqrt(np.einsum("gcc->gc", inverse))[:, :, None])


def obs(statistics: Statistics) -> np.ndarray:
    """What each channel adds to the loss when channels go greedily, group by group: float ``[components]``.

    Losses are squared changes of consumers' outputs relative to their energy, so that layers compare. A channel
    scores at least what those before it do.
    """
    scores = np.square(statistics.magnitudes) / max(statistics.magnitudes.size, 1)
    for pool in pools_of(statistics.analysis, statistics.options, statistics.magnitudes):
        if not pool.steps:
            continue
        channels = np.concatenate([s.channels for s in pool.steps])
        readers = statistics.readers.of(channels, statistics.ridge)
        if readers:
            order, losses = greedy_order(readers, channels)
            rising = np.maximum.accumulate(np.diff(losses, prepend=0.0))
            scores[order] = rising * (1 + 1e-9 * np.arange(order.size))  # equal ones keep their order
    return np.asarray(scores)


data_criterion(
    DataCriterion(
        "obs",
        "loss after the best refit of what stays (optimal brain surgeon)",
        "Hassibi & Stork 1993; Wang et al. 2024, arXiv:2403.18955",
        obs,
        obs_weights,
        allocation="global",
        compensate="lstsq",
    )
)
