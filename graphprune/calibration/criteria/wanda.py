"""Wanda: weights times the norms of what they multiply."""

from __future__ import annotations

import numpy as np

from graphprune.calibration.criteria.registry import DataCriterion, data_criterion
from graphprune.calibration.moments import Moments
from graphprune.calibration.statistics import Statistics
from graphprune.calibration.views import View


def wanda_weights(view: View, w: np.ndarray, moments: Moments, ridge: float) -> np.ndarray:
    """``|w| * rms(x)``, ``[groups, columns, outputs]``."""
    squares = np.einsum("gcc->gc", moments.xx) / moments.rows
    return np.asarray(np.abs(w) * np.sqrt(np.maximum(squares, 0))[:, :, None])


def wanda(statistics: Statistics) -> np.ndarray:
    """Norm of ``|w| * rms(x)`` over all columns of a channel, relative to the consumer's mean; mean of consumers."""
    return mean_over_readers(statistics, wanda_weights)


def mean_over_readers(statistics: Statistics, score: object) -> np.ndarray:
    """Root of the sum of squared weight scores of a channel in each consumer, each relative to its mean there.

    Channels without a measured consumer have their relative magnitudes: float ``[components]``.
    """
    assert callable(score)
    count = statistics.analysis.coupling.count
    total, consumers = np.zeros(count), np.zeros(count)
    readers = statistics.readers
    for name, channels in readers.channels.items():
        view, moments = readers.views[name], statistics.moments[name]
        w = view.matrix(np.asarray(view.weight.value.array()))
        squares = np.square(score(view, w, moments, statistics.ridge)).sum(2)
        found = np.zeros(count)
        np.add.at(found, np.maximum(channels, 0).reshape(-1), squares.reshape(-1))
        own = np.unique(channels[channels >= 0])
        norms = np.sqrt(found[own])
        total[own] += norms / max(float(norms.mean()), 1e-30)
        consumers[own] += 1
    return np.where(consumers > 0, total / np.maximum(consumers, 1), statistics.magnitudes)


data_criterion(
    DataCriterion(
        "wanda",
        "weights times the norms of their inputs",
        "Sun et al. 2023, arXiv:2306.11695",
        wanda,
        wanda_weights,
    )
)
