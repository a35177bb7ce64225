"""How much is measured on models of different sizes, so that minutes stay minutes; decided by counts, not by clocks."""

from __future__ import annotations

from dataclasses import dataclass

MACS_MEASURED = 2e12
"""Multiplications that the distortion tables may take: half a minute on two cores."""

MACS_SEEN = 1.5e12
"""The same for every pass over calibration inputs."""

BYTES_HELD = 2e9
"""Activations of all samples that are held at once."""

SAMPLES = (16, 2_000)
"""Fewest and most calibration samples when the user gives no number."""

TABLE_SAMPLES = (16, 256)
FINE = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
COARSE = (0.25, 0.5, 0.75)
ENOUGH = 64
"""Samples below which coarser tables are better than fewer samples."""


@dataclass(frozen=True)
class Effort:
    """Of the distortion tables: shares at which pools are measured, on how many samples, in how many orders."""

    levels: tuple[float, ...]
    samples: int
    orders: int


def effort_for(macs: int, pools: int) -> Effort:
    """``macs``: of one sample; ``pools``: how many are measured."""
    for levels, orders in ((FINE, 2), (FINE, 1), (COARSE, 1)):
        runs = pools * len(levels) * orders
        if samples_for_runs(macs, runs) >= ENOUGH or levels is COARSE:
            break
    return Effort(levels, samples_for_runs(macs, runs), orders)


def samples_for_runs(macs: int, runs: int, most: int = TABLE_SAMPLES[1]) -> int:
    """Samples, ``most`` at most, to run ``runs`` variants of a model of ``macs`` per sample on."""
    return min(max(int(MACS_MEASURED / max(macs * runs, 1)), TABLE_SAMPLES[0]), most)


def samples_for(macs: int, widest: int) -> int:
    """Calibration samples for a model of ``macs`` per sample whose widest value has ``widest`` bytes per sample."""
    low, high = SAMPLES
    fits = min(MACS_SEEN / max(macs, 1), BYTES_HELD / max(3 * widest, 1))
    return int(min(max(fits, low), high))
