"""Sensitivity: what pruning each group alone does to a model, measured."""

from __future__ import annotations

from dataclasses import replace

from graphprune.analysis import Analysis, analyze_model
from graphprune.calibrated import sample_shapes, small_batches
from graphprune.calibration.collect import Progress
from graphprune.choosing import PruneOptions
from graphprune.errors import OptionError
from graphprune.finite import check_finite
from graphprune.models import Model
from graphprune.sensitivity.asked import RATIOS, Asked, read_inputs
from graphprune.sensitivity.measuring import measure_sensitivity
from graphprune.sensitivity.result import GroupSensitivity, Sensitivity

NOISE = "sensitivity was measured on random noise; with --data it is measured on your inputs"


def analyze_sensitivity(
    model: Model, analysis: Analysis, options: PruneOptions, asked: Asked, progress: Progress
) -> Analysis:
    """``analysis`` of ``model`` (made again at the sizes of the data where these differ) with its sensitivity.

    Raises OptionError, DataError, ModelError, and BudgetError where nothing can be pruned.
    """
    if options.structure != "channel":
        raise OptionError(
            f"--sensitivity prunes groups of channels: leave out --structure {options.structure}"
        )
    check_finite(analysis.coupling)
    seen = read_inputs(model.ir, analysis, asked, options.seed)
    if asked.data is not None or asked.eval_data is not None:
        shapes = sample_shapes(model.ir, seen.all_feeds, options.input_shapes)
        if shapes != {v.name: v.shape for v in analysis.graph.inputs}:
            analysis = analyze_model(
                model.ir,
                model.name,
                input_shapes=shapes,
                attention=options.attention,
                allow_inexact=options.allow_inexact,
                notes=model.notes,
            )
            options = replace(options, input_shapes=shapes)
    else:
        analysis.notes.append(NOISE)
    seen = replace(seen, feeds=small_batches(model, options, seen.feeds))
    analysis.sensitivity = measure_sensitivity(model.ir, analysis, options, asked, seen, progress)
    return analysis


__all__ = [
    "Asked",
    "GroupSensitivity",
    "RATIOS",
    "Sensitivity",
    "analyze_sensitivity",
    "measure_sensitivity",
    "read_inputs",
]
