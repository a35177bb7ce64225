"""Criteria that look at activations; each in a file of its own."""

from graphprune.calibration.criteria import ablation, flap, obs, reconstruct, wanda  # noqa: F401 - they register
from graphprune.calibration.criteria.registry import (
    DataCriterion,
    all_data_criteria,
    data_criterion,
    find_data_criterion,
)

__all__ = ["DataCriterion", "all_data_criteria", "data_criterion", "find_data_criterion"]
