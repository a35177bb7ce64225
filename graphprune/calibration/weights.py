"""Blocks and N:M patterns with inputs and without training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphprune.blocking import Blocking
from graphprune.calibration.criteria.registry import WeightScore
from graphprune.calibration.pairs import weight_pairs
from graphprune.calibration.refit import Fitting, refit
from graphprune.calibration.statistics import Statistics
from graphprune.frontends.onnx import build_graph
from graphprune.writeback import with_tensors


def importance(statistics: Statistics, score: WeightScore) -> dict[str, np.ndarray]:
    """Weight name -> how much every weight matters, relative to the weight's mean, of its shape.

    Weights that have no moments are left out.
    """
    found = {}
    for view in statistics.views:
        moments = statistics.moments.get(view.name)
        if moments is None:
            continue
        array = np.asarray(view.weight.value.array())
        scores = score(view, view.matrix(array), moments, statistics.ridge)
        found[view.name] = view.tensor(scores / max(float(scores.mean()), 1e-30), array.shape)
    return found


def block_importance(blocking: Blocking, found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Roots of the mean squares of ``importance``; magnitudes where nothing was measured: float ``[blocks]``."""
    return blocking.scores(lambda value: found[value.name] if value.name in found else value.array())


def compensated_weights(
    statistics: Statistics,
    masks: Mapping[str, np.ndarray],
    kind: str,
    trained: Mapping[str, np.ndarray] | None = None,
) -> ir.Model:
    """The model with what its kept weights get; ``masks``: weight name -> bool of its shape.

    ``trained``: see ``channels.compensated``.
    """
    model = with_tensors(statistics.model, trained) if trained else statistics.model
    if kind == "none":
        return model
    graph = statistics.analysis.graph
    shapes = {v.name: v.shape for v in graph.inputs if v.shape is not None}
    whole = build_graph(model, shapes) if trained else graph
    masked = with_tensors(model, {n: np.where(m, whole.values[n].array(), 0) for n, m in masks.items()})
    zeroed = build_graph(masked, shapes)
    found = refit(
        masked,
        zeroed,
        statistics.model,
        graph,
        weight_pairs(zeroed, graph, masks),
        statistics.batches,
        Fitting(kind, statistics.ridge, seed=statistics.options.seed),
        statistics.progress,
    )
    return with_tensors(model, found)
