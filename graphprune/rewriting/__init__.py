"""Rewrites: operators that a target lacks -> equal graphs. One small file per family of rules.

Importing this package registers every rule, in the order in which they run.
"""

from graphprune.rewriting import (  # isort: skip
    global_pool,
    axis_mean,
    spread,
    activations,
    batchnorm,
    shuffle,
)
from graphprune.rewriting.engine import Left
from graphprune.rewriting.equality import Equality
from graphprune.rewriting.legalise import RewriteResult, rewrite
from graphprune.rewriting.registry import all_rewrite_rules, find_rewrite_rule, rewrite_rule

__all__ = [
    "Equality",
    "Left",
    "RewriteResult",
    "activations",
    "all_rewrite_rules",
    "axis_mean",
    "batchnorm",
    "find_rewrite_rule",
    "global_pool",
    "rewrite",
    "rewrite_rule",
    "shuffle",
    "spread",
]
