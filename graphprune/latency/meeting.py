"""A budget of latency: predicted from the cost table, measured, corrected, until it is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.budget import Budget, Decision, Measure, OutOfReach
from graphprune.choosing import PruneOptions
from graphprune.errors import BudgetError
from graphprune.latency.judging import Judge
from graphprune.latency.multiples import measure_multiples
from graphprune.latency.predicting import Predictor
from graphprune.latency.table import CostTable, Progress
from graphprune.selection import DEFAULT_RULE
from graphprune.surgery import apply

TOLERANCE = 0.05
"""Of the request: a latency this near to it meets it, measured twice."""

TRIES = 10
"""Candidates that are asked for at most."""

LOOKS = 3
"""Measurements of one candidate at most, but for the second in a row."""

Decide = Callable[[Budget], Decision]
Share = Callable[[np.ndarray], tuple[float, bool]]
"""``alive`` -> the measured share of the latency, and whether the machine was too busy."""


def measured_rule(options: PruneOptions) -> PruneOptions:
    """Under a budget of latency with ``multiple_of`` left automatic: the multiples that this onnxruntime rewards."""
    automatic = options.multiple_of is None and options.rule == DEFAULT_RULE
    if options.budget.kind != "latency" or not automatic:
        return options
    options.engine.check()
    return replace(options, rule=measure_multiples(options.engine).rule)


def within_budget(
    model: ir.Model,
    analysis: Analysis,
    options: PruneOptions,
    decide: Callable[[PruneOptions], Decision],
    progress: Progress | None = None,
) -> Decision:
    """``decide(options)``; under a budget of latency the decision that meets it on this machine.

    A decision of latency says in ``achieved`` the measured share of the original's latency (mean of two measurements
    of the pruned model), and in ``details`` both of them and what they were measured on. Where no decision comes
    within TOLERANCE, the nearest is given, with a note.

    Raises BudgetError where even all that can go leaves more.
    """
    if options.budget.kind != "latency":
        return decide(options)
    judge = Judge(model, analysis.graph, options.input_shapes, options.engine)
    predict = Predictor(analysis, CostTable.of(options.engine), judge.whole(), options.rule, progress)
    tried = 0

    def share(alive: np.ndarray) -> tuple[float, bool]:
        nonlocal tried
        tried += 1
        if progress is not None:
            progress("measuring candidates", tried, TRIES)
        return judge.share(apply(model, analysis.coupling, alive).model)

    met = meet(
        options.budget.requested, predict, lambda budget: decide(replace(options, budget=budget)), share
    )
    details: dict[str, Any] = {"measured": [round(m, 4) for m in met.measured], **options.engine.to_dict()}
    achieved = round(float(np.mean(met.measured)), 4)
    return Decision(met.decision.alive, achieved, details, met.notes)


@dataclass(frozen=True)
class Met:
    """The decision nearest to the request, and its measured shares (two)."""

    decision: Decision
    measured: tuple[float, float]
    notes: tuple[str, ...]


@dataclass
class _Try:
    """A candidate: the share that it is predicted to remove, and every measurement of what it keeps."""

    decision: Decision
    predicted: float
    looks: list[float] = field(default_factory=list)
    busy: bool = False

    @property
    def kept(self) -> float:
        return float(np.median(self.looks))

    def look(self, share: Share) -> float:
        """Measure it (again)."""
        kept, busy = share(self.decision.alive)
        self.looks.append(kept)
        self.busy |= busy
        return kept


def meet(requested: float, predict: Measure, decide: Decide, share: Share) -> Met:
    """Build and measure candidates until one keeps ``requested`` of the latency, twice in a row.

    predict: share removed under a decision, rising with what goes. decide: under a budget whose ``measure`` is
    ``predict``. What was measured of one candidate corrects what the next one is predicted to need: the measured
    share is interpolated between candidates. Where one comes up again, it and its neighbours are measured again,
    LOOKS times at most.

    Raises BudgetError where even all that can go leaves more.
    """

    def close(kept: float) -> bool:
        return abs(kept / requested - 1) <= TOLERANCE

    tried: dict[bytes, _Try] = {}
    want, most, stuck = 1 - requested, 1.0, False
    for _ in range(TRIES):
        decision, most = _decision(decide, predict, want, most)
        found = tried.setdefault(decision.alive.tobytes(), _Try(decision, predict(decision.alive)))
        doubtful = _doubtful(found, tried)
        if doubtful is not None:
            stuck = False
            if close(doubtful.look(share)) and close(doubtful.look(share)):
                return Met(doubtful.decision, (doubtful.looks[-2], doubtful.looks[-1]), _busy(doubtful.busy))
            want = _corrected(requested, tried)
        elif stuck:
            break
        else:  # there may be another decision between the two nearest
            stuck = True
            want = _between(requested, tried)
        if want >= most and found.predicted >= most - 1e-6 and len(found.looks) > 1:
            break
    best = min(tried.values(), key=lambda t: abs(t.kept / requested - 1))
    if len(best.looks) < 2:
        best.look(share)
    measured = (best.looks[-2], best.looks[-1])
    if most < 1 and min(t.kept for t in tried.values()) > (1 + TOLERANCE) * requested:
        raise BudgetError(
            f"--latency {requested:g} cannot be reached: what can go here leaves {min(measured):.2f} of the latency, "
            "measured; ask for more, or relax --min-channels, --exclude or --allow-inexact"
        )
    said = (
        f"--latency {requested:g} was not met within {100 * TOLERANCE:.0f} %: the nearest of {len(tried)} candidates "
        f"was measured at {measured[0]:.3f} and {measured[1]:.3f} of the original's latency",
    )
    return Met(best.decision, measured, said + _busy(best.busy))


def _doubtful(found: _Try, tried: dict[bytes, _Try]) -> _Try | None:
    """What to measure next: ``found``, if it is new; else it or a neighbour, whichever was measured least, as any of
    them may have brought us here by a wrong measurement. None where all were measured LOOKS times."""
    if not found.looks:
        return found
    ordered = sorted(tried.values(), key=lambda t: t.predicted)
    place = next(i for i, t in enumerate(ordered) if t is found)
    near = [t for t in ordered[max(place - 1, 0) : place + 2] if len(t.looks) < LOOKS]
    return min(near, key=lambda t: (len(t.looks), t is found), default=None)


def _decision(decide: Decide, predict: Measure, want: float, most: float) -> tuple[Decision, float]:
    """That removes ``want`` by prediction, or as much as can go; and how much that is, as far as it is known."""
    want = min(max(want, 0.0), most, 1 - 1e-6)
    budget = partial(Budget, "latency", measure=predict)
    try:
        return decide(budget(requested=1 - want)), most
    except OutOfReach as error:
        most = max(error.most, 0.0)
        return decide(budget(requested=1 - most)), most


def _busy(busy: bool) -> tuple[str, ...]:
    if not busy:
        return ()
    return ("the machine was busy while latency was measured: check the result with graphprune bench",)


def _corrected(requested: float, tried: dict[bytes, _Try]) -> float:
    """The predicted removal at which the measured one is expected to be what is wanted."""
    points = sorted([(0.0, 0.0), *((t.predicted, 1 - t.kept) for t in tried.values())])
    predicted = np.array([p for p, _ in points])
    measured = np.maximum.accumulate([m for _, m in points])
    target = 1 - requested
    if target <= measured[-1]:
        return float(np.interp(target, measured, predicted))
    slope = measured[-1] / predicted[-1] if predicted[-1] > 0 else 1.0
    return float(predicted[-1] + (target - measured[-1]) / min(max(slope, 0.2), 5.0))


def _between(requested: float, tried: dict[bytes, _Try]) -> float:
    """Halfway between the nearest candidates on either side."""
    below = max((t.predicted for t in tried.values() if t.kept > requested), default=0.0)
    above = min((t.predicted for t in tried.values() if t.kept <= requested), default=1.0)
    return (below + above) / 2
