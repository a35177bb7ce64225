"""AC/DC: alternating compressed and decompressed training."""

from __future__ import annotations

from graphprune.methods.masks import at_once, at_once_curve, at_once_rows
from graphprune.methods.registry import TrainedMethod, register
from graphprune.methods.stages import alternating

register(
    TrainedMethod(
        name="acdc",
        summary="training by turns dense and at the full sparsity, by magnitude",
        citation="Peste et al. 2021, arXiv:2106.12379",
        source="weights",
        relax=at_once,
        relax_curve=at_once_curve,
        relax_rows=at_once_rows,
        schedule=alternating,
        restarts=True,
        gradual_rows=True,
        defaults={"rounds": 4, "snap": 0.0},
    )
)
