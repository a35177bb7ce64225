"""GraSP: keep what preserves the gradient flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.methods.registry import register, scored

if TYPE_CHECKING:
    from graphprune.search.scoring import Scoring


def grasp(scoring: Scoring) -> np.ndarray:
    """``theta * (H g)`` summed over the unit, large stays (equation 8 with the sign turned; methods.md B8)."""
    import torch

    weights = scoring.weights()
    parameters = list(weights.values())
    mean = [torch.zeros_like(p) for p in parameters]
    for loss in scoring.losses():
        for total, gradient in zip(mean, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient
    products = [torch.zeros_like(p) for p in parameters]
    for loss in scoring.losses():
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        flow = torch.stack([(g * m).sum() for g, m in zip(gradients, mean, strict=True)]).sum()
        for total, hessian in zip(products, torch.autograd.grad(flow, parameters), strict=True):
            total += hessian
    return scoring.unit_sums(
        {name: p.detach() * h for (name, p), h in zip(weights.items(), products, strict=True)}
    )


register(
    scored(
        "grasp",
        grasp,
        summary="effect on the gradient's norm",
        citation="Wang et al. 2020, arXiv:2002.07376",
    )
)
