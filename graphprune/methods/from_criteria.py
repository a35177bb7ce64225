"""A criterion as a method that looks at a module: scored when masks are chosen, trained between rounds and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.criteria import Criterion, all_criteria
from graphprune.lookup import lookup
from graphprune.methods.registry import TrainedMethod, all_trained, scored

if TYPE_CHECKING:
    from graphprune.search.scoring import Scoring


def searching(name: str) -> TrainedMethod:
    """The method ``name``, trained, scored or a criterion's. Raises OptionError, with the nearest name."""
    known: dict[str, Criterion | TrainedMethod] = {**all_criteria(), **all_trained()}
    found = lookup(known, name, "method")
    return _method(found) if isinstance(found, Criterion) else found


def _method(criterion: Criterion) -> TrainedMethod:
    def score(scoring: Scoring) -> np.ndarray:
        return scoring.by_criterion(criterion)

    c = criterion
    return scored(
        c.name,
        score,
        summary=c.summary,
        citation=c.citation,
        structures=c.structures,
        data="none",
        allocation=c.allocation,
    )
