"""``prune`` for whole channels: analysis -> scores -> decision -> surgery -> proof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis, analyze_model
from graphprune.budget import Decision
from graphprune.choosing import PruneOptions, choose
from graphprune.criteria import channel_scores, find_criterion
from graphprune.errors import PlanError, own_bug
from graphprune.finite import check_finite
from graphprune.latency.meeting import measured_rule, within_budget
from graphprune.plan import Plan
from graphprune.planning import describe
from graphprune.proof import Fidelity, verify_models
from graphprune.surgery import apply


@dataclass(eq=False)
class Pruned:
    """The smaller model with its plan and proof."""

    model: ir.Model
    plan: Plan
    fidelity: Fidelity
    analysis: Analysis
    removed_channels: int
    """Producer filters that went, of ``analysis.prunable_channels``."""


def prune_channels(
    model: ir.Model,
    name: str,
    options: PruneOptions,
    *,
    sha256: str,
    notes: list[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Pruned:
    """Remove whole channels of ``model`` (left untouched) under the budget, and prove the result.

    ``progress`` is told what is measured, and how much of how much is done.

    Raises BudgetError where the budget cannot be reached, OptionError for options that match nothing,
    FidelityError where the result does not equal the masked original.
    """
    options = measured_rule(options)
    analysis = analyze(model, name, options, notes)
    rng = np.random.default_rng(options.seed)
    scores = channel_scores(analysis.groups, find_criterion(options.method), rng)
    scores = analysis.coupling.grids.spread(scores)
    decision = within_budget(
        model, analysis, options, lambda asked: choose(analysis, asked, scores), progress
    )
    return cut(model, model, analysis, decision, options, sha256=sha256)


def analyze(model: ir.Model, name: str, options: PruneOptions, notes: list[str] | None = None) -> Analysis:
    """Trace and couple ``model`` as ``options`` say. Raises ModelError for weights that hold NaN."""
    found = analyze_model(
        model,
        name,
        input_shapes=options.input_shapes,
        attention=options.attention,
        allow_inexact=options.allow_inexact,
        notes=notes,
    )
    check_finite(found.coupling)
    return found


def prove(original: ir.Model, pruned: ir.Model, plan: Plan, options: PruneOptions) -> Fidelity:
    """The proof of our own result, recorded in ``plan``. Raises FidelityError where it fails."""
    try:
        fidelity = verify_models(original, pruned, plan, input_shapes=options.input_shapes)
    except PlanError as error:  # our own plan: it cannot be the user's mistake
        raise own_bug(str(error)) from error
    plan.fidelity = fidelity.to_dict()
    if not fidelity.holds:
        raise own_bug(fidelity.message)
    return fidelity


def cut(
    original: ir.Model,
    weighted: ir.Model,
    analysis: Analysis,
    decision: Decision,
    options: PruneOptions,
    *,
    sha256: str,
) -> Pruned:
    """Carry out a decision and prove it.

    ``weighted`` is the model whose weights the result gets: ``original`` itself, or the same graph with
    other weights (trained); ``analysis`` is of ``weighted``. Raises FidelityError.
    """
    surgery = apply(weighted, analysis.coupling, decision.alive)
    cost = analysis.cost
    analysis.notes.extend(decision.notes)
    plan = describe(
        analysis.coupling,
        decision.alive,
        surgery,
        source_sha256=sha256,
        method=options.method,
        seed=options.seed,
        weights="original" if weighted is original else "trained",
        analysis=options.reading(),
        budget={
            "kind": options.budget.kind,
            "requested": options.budget.requested,
            "achieved": decision.achieved,
            **decision.details,
        },
        params={"before": cost.total_params, "after": cost.params(decision.alive)},
        macs={"before": cost.total_macs, "after": cost.macs(decision.alive)},
    )
    fidelity = prove(original, surgery.model, plan, options)
    gone = analysis.coupling.removable & ~decision.alive
    removed = int(analysis.groups.producers[gone].sum())
    return Pruned(surgery.model, plan, fidelity, analysis, removed)
