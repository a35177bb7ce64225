"""The path of PSO from dense to sparse: an ODE whose time is the share of weights that is gone.

Masks ``m`` (float64 ``[units]``) move so that their density falls by exactly what each step asks for and the loss
grows as little as it can (Mo, Shi and Pan 2023, "Pruning via Sparsity-indexed ODE", sections 3 and 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_NOTHING = 1e-10
"""Masks below this are 0: beside 1 they change nothing, but they would make denormal, slow numbers."""
REACH = 1.1
"""``r``: how far a step may go, in units of the shortest step that lowers the density enough. As published."""
POLARITY = 0.9
"""``eps``: the soft mask at the threshold; as published."""
LOWER = 0.9
"""Times the share that is gone: the quantile at which the soft mask is 1 - POLARITY. As published."""
_NARROWEST = 1e-3
"""The least width of the polariser relative to its threshold: equal magnitudes would make it infinitely steep."""


def density(m: np.ndarray, cost: np.ndarray) -> float:
    """``G = sqrt(sum(c m^2) / sum(c))``: 1 for masks of 1, the root of the kept share for masks of 0 and 1."""
    return float(np.sqrt(cost @ np.square(m) / cost.sum()))


def density_gradient(m: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """``dG/dm``; G and the masks must not be 0."""
    return np.asarray(cost * m / (cost.sum() * density(m, cost)))


def velocity(e: np.ndarray, g: np.ndarray, reach: float = REACH) -> np.ndarray:
    """``F = dm/dt`` with ``g.F = 1`` and ``|F||g| = reach``, and the largest ``e.F`` of all such F.

    ``e``, ``g``: minus the gradients of loss and density. The published ``F = x e + y g``, written with the part
    of ``e`` that is orthogonal to ``g``; where there is none (no loss to save), the shortest F.
    """
    norm = float(np.linalg.norm(g))
    unit = g / norm
    across = e - (e @ unit) * unit
    across -= (across @ unit) * unit  # what rounding left along g would be all there is where e is parallel
    length = float(np.linalg.norm(across))
    if length <= 1e-12 * float(np.linalg.norm(e)):
        return np.asarray(unit / norm)
    return np.asarray((unit + np.sqrt(reach**2 - 1) * across / length) / norm)


def steps(start: float, target: float, count: int) -> np.ndarray:
    """How much each of ``count`` steps lowers the density, in equal ratios: the largest comes first."""
    return -np.diff(start * (target / start) ** (np.arange(count + 1) / count))


@dataclass(frozen=True, eq=False)
class Polarised:
    """Masks that act: ``mask``, its derivative ``slope`` in m (the threshold held), and who is ``above`` it."""

    mask: np.ndarray
    slope: np.ndarray
    above: np.ndarray


Polariser = Callable[[np.ndarray, np.ndarray, float], Polarised]
"""Masks, the magnitudes of their units, the share that is gone -> masks that act."""


def quantile_sigmoid(m: np.ndarray, norms: np.ndarray, gone: float) -> Polarised:
    """Sigmoid of ``|m| norms``: POLARITY at its quantile ``gone``, 1 - POLARITY at ``LOWER gone``.

    The identity while less than one unit is gone.
    """
    if gone * m.size < 1:
        return _identity(m)
    size = np.abs(m) * norms
    low, high = np.quantile(size, [LOWER * gone, gone])
    width = max(float(high - low), _NARROWEST * float(high), np.finfo(np.float64).tiny)
    logit = np.log(POLARITY / (1 - POLARITY))
    x = logit * (1 - 2 * (high - size) / width)
    mask = 1 / (1 + np.exp(-np.clip(x, -700, 700)))
    slope = mask * (1 - mask) * 2 * logit / width * norms * np.sign(m)
    mask[mask < _NOTHING] = 0.0
    return Polarised(mask, slope, size >= high)


def hard(m: np.ndarray, norms: np.ndarray, gone: float) -> Polarised:
    """1 from the quantile ``gone`` of ``|m| norms`` on, 0 below it; gradients pass straight through."""
    if gone * m.size < 1:
        return _identity(m)
    size = np.abs(m) * norms
    above = size >= np.quantile(size, gone)
    return Polarised(above.astype(np.float64), np.ones(m.size), above)


def _identity(m: np.ndarray) -> Polarised:
    return Polarised(m, np.ones(m.size), np.ones(m.size, bool))
