"""GMP: gradual magnitude pruning. The smallest units are off, and more of them as the budget tightens."""

from __future__ import annotations

from graphprune.methods.masks import at_once, at_once_curve, at_once_rows
from graphprune.methods.registry import TrainedMethod, register

register(
    TrainedMethod(
        name="gmp",
        summary="hard masks of today's largest weights, cubic budget",
        citation="Zhu and Gupta 2017, arXiv:1710.01878",
        source="weights",
        relax=at_once,
        relax_curve=at_once_curve,
        relax_rows=at_once_rows,
        gradual_rows=True,
        defaults={"snap": 0.0},
    )
)
