"""The whole recipe: order by optimal brain surgeon, budget by measured distortions, weights by least squares."""

from __future__ import annotations

from graphprune.calibration.criteria.obs import obs, obs_weights
from graphprune.calibration.criteria.registry import DataCriterion, data_criterion

data_criterion(
    DataCriterion(
        "reconstruct",
        "best refit of what stays, with the budget spread by measured distortions",
        "greedy optimal brain surgeon, rate-distortion allocation (arXiv:2308.10438), least squares",
        obs,
        obs_weights,
        allocation="rate-distortion",
        compensate="lstsq",
    )
)
