"""Block influence: how far a branch turns what it is added to."""

from __future__ import annotations

import numpy as np

from graphprune.branches.registry import Question, branch_method
from graphprune.branches.removal import Chosen
from graphprune.branches.trials import run_outputs
from graphprune.calibration.turning import influence


@branch_method("cosine", citation="Men et al. 2024, arXiv:2403.03853", looks=True)
def cosine(question: Question) -> Chosen:
    """1 - cosine between the shortcut and the sum; the smallest go.

    In the original model, in one pass. Mean over vectors: tokens where values are ``[batch, tokens, features]``
    (as in the paper), else whole samples.
    """
    removal = question.removal
    pairs = [(b.shortcut.name, b.value) for b in removal.branches]
    names = [name for pair in pairs for name in pair]
    totals, counts = np.zeros(len(pairs)), np.zeros(len(pairs))
    for feed in question.feeds:
        (found,) = run_outputs(question.model, removal.graph, names, [feed])
        for i, (before, after) in enumerate(pairs):
            turned = influence(found[before], found[after])
            totals[i] += turned.sum()
            counts[i] += turned.size
    scores = totals / np.maximum(counts, 1)
    return removal.take(np.argsort(np.where(np.isfinite(scores), scores, np.inf), kind="stable").tolist())
