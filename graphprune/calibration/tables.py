"""Measured distortion tables: one pool pruned alone, at a few levels, refitted, and run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.calibration.candidates import candidate, refitted, run_outputs
from graphprune.calibration.collect import Progress, silent
from graphprune.calibration.distances import output_distance
from graphprune.calibration.readers import Readers
from graphprune.running import Feed
from graphprune.selection import Pool, without


@dataclass(frozen=True, eq=False)
class Table:
    """Of one pool: after how many of its steps, and the distance of the outputs then (0 steps: 0)."""

    steps: np.ndarray
    distances: np.ndarray

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Between levels linear in the number of steps."""
        return np.asarray(np.interp(steps, self.steps, self.distances))


def measure_tables(
    model: ir.Model,
    analysis: Analysis,
    pools: Sequence[Pool],
    readers: Readers,
    batches: Sequence[Feed],
    *,
    levels: Sequence[float],
    ridge: float,
    progress: Progress = silent,
) -> list[Table]:
    """A table for every pool, at ``levels`` (shares of its steps)."""
    outputs = [v.name for v in analysis.graph.outputs]
    inputs = [v.name for v in analysis.graph.inputs]
    wanted = run_outputs(model, outputs, inputs, batches)
    tables = []
    todo = [sorted({max(1, round(level * len(p.steps))) for level in levels}) for p in pools]
    total, done = sum(len(t) for t in todo), 0
    for pool, counts in zip(pools, todo, strict=True):
        if not pool.steps:
            tables.append(Table(np.zeros(1), np.zeros(1)))
            continue
        distances = [0.0]
        for count in counts:
            alive = without(analysis.everything, pool.steps[:count])
            small = candidate(model, analysis, alive, refitted(readers, alive, ridge))
            distances.append(output_distance(wanted, run_outputs(small, outputs, inputs, batches)))
            done += 1
            progress("distortions", done, total)
        # less can be left out than more: what a measurement says otherwise is noise
        tables.append(Table(np.array([0, *counts]), np.maximum.accumulate(distances)))
    return tables
