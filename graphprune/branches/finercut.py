"""FinerCut: the branch whose loss is felt least, again and again."""

from __future__ import annotations

from graphprune.branches.registry import Question, branch_method
from graphprune.branches.removal import Chosen
from graphprune.branches.trials import Trials


@branch_method("finercut", citation="Zhang et al. 2024, arXiv:2405.18218", looks=True)
def finercut(question: Question) -> Chosen:
    """Greedy: at each step the branch whose removal changes the outputs least, given those already gone.

    Every branch that still fits is cut out and run in every step, about branches x steps runs of the feeds. Outputs
    are compared by ``output_distance`` (the paper: the norm of the logits' difference, among others).
    """
    removal, trials = question.removal, Trials(question)
    chosen: Chosen = frozenset()
    while True:
        fitting = [i for i in removal.left(chosen) if removal.fits(chosen | {i})]
        if not fitting:
            break
        chosen |= {min(fitting, key=lambda i: trials.distance(chosen | {i}))}
    nearest = removal.finish(chosen, removal.left(chosen))
    if nearest == chosen:
        return chosen
    share = removal.share(nearest)
    alike = [i for i in removal.left(chosen) if abs(removal.share(chosen | {i}) - share) < 1e-12]
    return chosen | {min(alike, key=lambda i: trials.distance(chosen | {i}))}
