"""What one pass over calibration inputs says of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.calibration.collect import Progress, batch_size, collect, silent
from graphprune.calibration.moments import Moments
from graphprune.calibration.readers import Readers
from graphprune.calibration.views import View, views
from graphprune.choosing import PruneOptions, movable
from graphprune.criteria.scoring import mean_over_slices
from graphprune.running import Feed

RIDGE = ((256, 0.05), (2000, 0.01))
"""Samples and ridge: few samples need more; between the two a power law (measured, README "Without training")."""


@dataclass(eq=False)
class Statistics:
    """A model, its analysis, inputs for it, and the moments of what its contractions read."""

    model: ir.Model
    analysis: Analysis
    options: PruneOptions
    batches: Sequence[Feed]
    progress: Progress = silent
    views: list[View] = field(init=False)
    moments: dict[str, Moments] = field(init=False)

    def __post_init__(self) -> None:
        self.views = views(self.analysis.graph)
        self.moments = collect(
            self.model,
            self.analysis.graph,
            self.views,
            self.batches,
            seed=self.options.seed,
            progress=self.progress,
        )

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(batch_size(b) for b in self.batches)

    @property
    def ridge(self) -> float:
        """Of least squares, relative to the mean square of the inputs."""
        return ridge_for(self.samples)

    @property
    def macs(self) -> int:
        """Of one sample."""
        first = self.analysis.graph.inputs[0].shape or (1,)
        return self.analysis.cost.total_macs // max(first[0] if first else 1, 1)

    @cached_property
    def readers(self) -> Readers:
        """Which columns read a coupled channel."""
        return Readers(self.analysis.coupling, self.views, self.moments, movable(self.analysis, self.options))

    @cached_property
    def magnitudes(self) -> np.ndarray:
        """Relative magnitudes, float ``[components]``: for channels that no measured contraction reads."""
        scores = mean_over_slices(self.analysis.groups)
        return np.asarray(self.analysis.coupling.grids.spread(scores), np.float64)

    def first(self, count: int) -> list[Feed]:
        """The first batches, until there are ``count`` samples."""
        found: list[Feed] = []
        for feed in self.batches:
            if sum(batch_size(b) for b in found) >= count:
                break
            found.append(feed)
        return found


def ridge_for(samples: int) -> float:
    """See RIDGE."""
    (few, strong), (many, weak) = RIDGE
    low, high = np.log([few, many])
    place = np.clip((np.log(max(samples, 1)) - low) / (high - low), 0, 1)
    return float(strong * (weak / strong) ** place)
