"""Criteria: one file per score. A criterion maps the weights of units (channels, blocks, weights) to scores."""

from graphprune.criteria import bn_scale, dimap, fpgm, lamp, magnitude, random  # noqa: F401 - importing registers
from graphprune.criteria.registry import (
    Criterion,
    UnitRows,
    all_criteria,
    channel_criterion,
    criterion,
    find_criterion,
)
from graphprune.criteria.scoring import block_scores, channel_scores, weight_scores

__all__ = [
    "Criterion",
    "UnitRows",
    "all_criteria",
    "block_scores",
    "channel_criterion",
    "channel_scores",
    "criterion",
    "find_criterion",
    "weight_scores",
]
