"""Criteria: one file per score. A criterion maps a model's groups to a score per coupled channel."""

from graphprune.criteria import bn_scale, magnitude, random  # noqa: F401 - importing registers
from graphprune.criteria.registry import Criterion, all_criteria, criterion, find_criterion

__all__ = ["Criterion", "all_criteria", "criterion", "find_criterion"]
