"""FLAP: channels that hardly vary go, and the bias takes over their mean."""

from __future__ import annotations

import numpy as np

from graphprune.calibration.criteria.registry import DataCriterion, data_criterion
from graphprune.calibration.statistics import Statistics


def flap(statistics: Statistics) -> np.ndarray:
    """Variance of a channel times the squared norm of its columns, standardised in each consumer: ``[components]``.

    Equation 5 of FLAP; variances from summed squares in float64 rather than from its running estimate.
    """
    count = statistics.analysis.coupling.count
    total, consumers = np.zeros(count), np.zeros(count)
    readers = statistics.readers
    for name, channels in readers.channels.items():
        view, moments = readers.views[name], statistics.moments[name]
        w = view.matrix(np.asarray(view.weight.value.array()))
        variance = np.einsum("gcc->gc", moments.covariance(centred=True))
        found = np.zeros(count)
        np.add.at(found, np.maximum(channels, 0).reshape(-1), (variance * np.square(w).sum(2)).reshape(-1))
        own = np.unique(channels[channels >= 0])
        spread = float(found[own].std())
        total[own] += (found[own] - found[own].mean()) / (spread or 1.0)
        consumers[own] += 1
    rest = statistics.magnitudes - 1
    return np.where(consumers > 0, total / np.maximum(consumers, 1), rest)


data_criterion(
    DataCriterion(
        "flap",
        "fluctuation of inputs times squared weights, with the mean put into the bias",
        "An et al. 2023, arXiv:2312.11983",
        flap,
        allocation="global",
        compensate="bias",
    )
)
