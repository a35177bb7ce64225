"""PSO: masks follow an ODE indexed by sparsity; what fades early may come back. No weight is trained."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import OptionError
from graphprune.methods.pso_flow import (
    Polarised,
    Polariser,
    density,
    density_gradient,
    hard,
    steps,
    velocity,
)
from graphprune.methods.registry import register, scored

if TYPE_CHECKING:  # the table can be read without torch
    from collections.abc import Callable

    import torch

    from graphprune.search.scoring import Scoring

STEPS = 100
"""As published; each looks at one batch, in turn."""


def pso(scoring: Scoring, polarise: Polariser = hard) -> np.ndarray:
    """``|m|`` at the end of the path times the magnitude of the units' weights: float64 ``[units]``.

    The polariser ranks by the same product, so that path and decision agree. Leaves in ``scoring.curves`` the
    ``density`` after every step, and how many units were ``regrown`` and ``removed`` in it: those that crossed
    the polariser's threshold. Raises OptionError where the loss is not finite.
    """
    cost, norms = unit_weights(scoring), unit_norms(scoring)
    kept = float(cost[scoring.kept_with(norms)].sum() / cost.sum())
    batches = cycle([(*sample, scoring.wanted(*sample)) for sample in scoring.samples])
    held = scoring.masking.held_masks()  # of an earlier round
    m = np.ones(scoring.units.size) if held is None else held
    share = density(m, cost)
    masks = polarise(m, norms, 1 - share)
    curves: dict[str, list[float]] = {"density": [], "regrown": [], "removed": []}
    with scoring.masks_at_one() as probe:
        for step, batch in zip(steps(share, min(kept, share), STEPS), batches, strict=False):
            e = descent(partial(scoring.loss, *batch), probe, masks)
            m = m + step * velocity(e, -density_gradient(m, cost))
            share, before = density(m, cost), masks.above
            masks = polarise(m, norms, 1 - share)
            curves["density"].append(share)
            curves["regrown"].append(float(np.sum(masks.above & ~before)))
            curves["removed"].append(float(np.sum(before & ~masks.above)))
    scoring.curves.update(curves)
    return np.asarray(np.abs(m) * norms)


def descent(loss: Callable[[], torch.Tensor], probe: torch.Tensor, masks: Polarised) -> np.ndarray:
    """Minus the gradient in m of the loss under ``masks``, which ``probe`` takes up: float64 ``[units]``."""
    import torch

    with torch.no_grad():
        probe.copy_(torch.from_numpy(masks.mask))
    (gradient,) = torch.autograd.grad(loss(), probe)
    if not torch.isfinite(gradient).all():
        raise OptionError("--method pso: the masked network's loss is not finite; use another method")
    return np.asarray(-gradient.double().cpu().numpy() * masks.slope)


def unit_weights(scoring: Scoring) -> np.ndarray:
    """How many weights every unit's mask multiplies, at least 1: float64 ``[units]``."""
    ones = {name: w.detach() * 0 + 1 for name, w in scoring.weights().items()}
    return np.asarray(np.maximum(scoring.unit_sums(ones), 1.0))


def unit_norms(scoring: Scoring) -> np.ndarray:
    """``sum |w|`` of what every unit's mask multiplies, relative to the mean of its layer: float64 ``[units]``."""
    sums = scoring.unit_sums({name: w.detach().abs() for name, w in scoring.weights().items()})
    layers = np.unique(scoring.units.layers, return_inverse=True)[1]
    means = np.bincount(layers, sums) / np.bincount(layers)
    return np.asarray(sums / np.maximum(means, np.finfo(np.float64).tiny)[layers])


register(
    scored(
        "pso",
        pso,
        summary="masks along a sparsity-indexed ODE, in 100 gradients",
        citation="Mo et al. 2023, ICML, PMLR 202:25018-25036",
        structures=("channel", "block"),
        allocation="uniform",  # as published for structures: over all layers, residual streams end as one channel
    )
)
