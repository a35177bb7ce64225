"""Output ablation: every channel removed alone, and the model run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphprune.calibration.candidates import candidate, run_outputs
from graphprune.calibration.criteria.registry import DataCriterion, data_criterion
from graphprune.calibration.distances import output_distance
from graphprune.calibration.statistics import Statistics
from graphprune.choosing import PruneOptions, pools_of
from graphprune.selection import without

SAMPLES = 64


def ablation(statistics: Statistics) -> np.ndarray:
    """How far the outputs move when a removable set of channels goes alone: float ``[components]``.

    One run of the model on SAMPLES samples for each; channels that count constraints tie together share a score.
    """
    analysis, model = statistics.analysis, statistics.model
    batches = statistics.first(SAMPLES)
    inputs, outputs = ([v.name for v in side] for side in (analysis.graph.inputs, analysis.graph.outputs))
    wanted = run_outputs(model, outputs, inputs, batches)
    scores = np.array(statistics.magnitudes)
    single = [s for p in pools_of(analysis, _unaligned(statistics), statistics.magnitudes) for s in p.steps]
    for number, step in enumerate(single):
        alive = without(analysis.everything, [step])
        found = run_outputs(candidate(model, analysis, alive, {}), outputs, inputs, batches)
        scores[step.channels] = output_distance(wanted, found)
        statistics.progress("ablation", number + 1, len(single))
    return scores


def _unaligned(statistics: Statistics) -> PruneOptions:
    return replace(statistics.options, multiple_of=1)


data_criterion(
    DataCriterion(
        "ablation",
        "change of the model's outputs when a channel goes alone",
        "e.g. Castells et al. 2024, arXiv:2404.11936",
        ablation,
        allocation="global",
    )
)
