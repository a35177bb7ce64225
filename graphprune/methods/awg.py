"""AWG: accumulated weight x gradient, pruned in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.methods.masks import at_once, at_once_curve, at_once_rows
from graphprune.methods.registry import TrainedMethod, register
from graphprune.methods.stages import rising

if TYPE_CHECKING:
    import torch


def weigh(x: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
    """Importance times the layer factor 1 / density: layers that are sparse already are spared.

    The paper (SMART, appendix G) gives importance as |weight| x |accumulated gradient| x layer factor, and says of
    the factor only that it grows with the layer's sparsity.
    """
    return x / density.clamp_min(1e-6)


register(
    TrainedMethod(
        name="awg",
        summary="running mean of |weight x gradient| x layer factor, in steps",
        citation="SMART, appendix G (arXiv:2403.19969)",
        source="gradients",
        relax=at_once,
        relax_curve=at_once_curve,
        relax_rows=at_once_rows,
        schedule=rising,
        weigh=weigh,
        gradual_rows=True,
        defaults={"rounds": 5, "snap": 0.0},
    )
)
