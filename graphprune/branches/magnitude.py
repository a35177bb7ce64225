"""Branches by their weights alone."""

from __future__ import annotations

import numpy as np

from graphprune.branches.registry import Question, branch_method
from graphprune.branches.removal import Chosen
from graphprune.contractions import ContractionWeight, contraction_weights
from graphprune.residuals import Branch

NOTE = (
    "magnitude sees a branch's weights only, which say little about the branch: with inputs at hand use --method "
    "finercut --data ..."
)


@branch_method("magnitude", citation="", looks=False, note=NOTE)
def magnitude(question: Question) -> Chosen:
    """Mean over a branch's weights of their root mean square times the root of what each output sums over.

    For independent weights this is the gain of a layer, which is comparable between widths.
    """
    removal = question.removal
    gains = {w: _gain(w) for w in contraction_weights(removal.graph)}
    scores = [_score(b, gains) for b in removal.branches]
    return removal.take(np.argsort(scores, kind="stable").tolist())


def _score(branch: Branch, gains: dict[ContractionWeight, float]) -> float:
    inner = set(branch.nodes)
    found = [gain for w, gain in gains.items() if w.node in inner]
    return float(np.mean(found)) if found else float("inf")  # weights it cannot read: such branches go last


def _gain(weight: ContractionWeight) -> float:
    array = np.asarray(weight.value.array(), np.float64)
    summed = array.size / max(weight.shape[weight.out_axis], 1)
    return float(np.sqrt(np.square(array).mean() * summed)) if array.size else 0.0
