"""Operator rules, one short function per operator family. Importing this package registers them all."""

from graphprune.rules import (
    attention,
    convolution,
    elementwise,
    matmul,
    movement,
    normalization,
    quantized,
    recurrent,
    spatial,
)
from graphprune.rules.registry import Rule, all_rules, find_rule, rule

__all__ = [
    "Rule",
    "all_rules",
    "attention",
    "convolution",
    "elementwise",
    "find_rule",
    "matmul",
    "movement",
    "normalization",
    "quantized",
    "recurrent",
    "rule",
    "spatial",
]
