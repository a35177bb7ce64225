"""Weights zeroed by blocks or N:M patterns: the file, what it can lose besides, its plan, and the proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.choosing import PruneOptions
from graphprune.contractions import contraction_weights
from graphprune.freeing import free_channels
from graphprune.mapped import array_of
from graphprune.models import Model
from graphprune.patterning import selected_weights
from graphprune.plan import Indices
from graphprune.planning import alive_after, describe
from graphprune.pruning import Pruned, analyze, prove
from graphprune.surgery import apply
from graphprune.writeback import hold, stored_tensors, with_masked

NAMED = 4
"""Weights that a note names."""


@dataclass(frozen=True, eq=False)
class WeightDecision:
    """Which weights stay."""

    masks: dict[str, np.ndarray]
    """Weight name -> bool of its shape."""
    fields: dict[str, Any]
    """What the plan says of the pattern."""
    achieved: float
    """Share of the weights in the pattern that goes."""
    dense: Sequence[str] = ()
    """Weights that are too small for a block."""
    removed: Mapping[str, Mapping[str, Indices]] | None = None
    """Channels that go besides, as a plan names them; None: all that nothing reads any more."""


def zero_weights(
    source: Model, weighted: ir.Model, decision: WeightDecision, options: PruneOptions
) -> Pruned:
    """Zero what ``decision`` drops in ``weighted``, and prove the result.

    Channels that nothing reads any more are removed too (blocks only). Raises FidelityError.
    """
    masks = decision.masks
    zeroed = with_masked(weighted, masks)
    analysis = analyze(zeroed, source.name, options, source.notes)
    if decision.dense:
        analysis.notes.append(_left_dense(decision.dense, options))
    alive = _alive(zeroed, analysis, decision, options)
    surgery = apply(zeroed, analysis.coupling, alive)
    hold(surgery.model)
    cost = analysis.cost
    left = cost.params(alive)
    gone = analysis.coupling.removable & ~alive
    channels = int(analysis.groups.producers[gone].sum())
    plan = describe(
        analysis.coupling,
        alive,
        surgery,
        source_sha256=source.sha256(),
        method=options.method,
        seed=options.seed,
        weights="original" if weighted is source.ir else "trained",
        analysis=options.reading(),
        budget={"kind": "sparsity", "requested": options.budget.requested, "achieved": decision.achieved},
        params={"before": cost.total_params, "after": left - _zeros(surgery.model, masks)},
        macs={"before": cost.total_macs, "after": cost.macs(alive)},
        freed={"channels": channels, "params": cost.total_params - left},
        **decision.fields,
    )
    fidelity = prove(source.ir, surgery.model, plan, options)
    return Pruned(surgery.model, plan, fidelity, analysis, channels)


def _alive(
    zeroed: ir.Model, analysis: Analysis, decision: WeightDecision, options: PruneOptions
) -> np.ndarray:
    """Channels that stay, bool ``[components]``: all of them for N:M, whose groups must stay whole."""
    if options.structure != "block":
        return analysis.everything
    if decision.removed is not None:
        return alive_after(analysis.coupling, decision.removed)
    blocks = {name: entry["shape"] for name, entry in decision.fields["blocks"].items()}
    excluded = _excluded(analysis, options)
    return free_channels(zeroed, analysis, blocks, excluded=excluded, multiple_of=options.multiple_of)


def _zeros(model: ir.Model, masks: Mapping[str, np.ndarray]) -> int:
    """Zero weights that the file still stores."""
    stored = stored_tensors(model, [n for n in masks if n in model.graph.initializers])
    return sum(t.size - int(np.count_nonzero(array_of(t))) for t in stored.values())


def _excluded(analysis: Analysis, options: PruneOptions) -> set[str]:
    """Weights that the user excluded."""
    every = {w.value.name for w in contraction_weights(analysis.graph)}
    return every - {w.value.name for w in selected_weights(analysis.graph, options)}


def _left_dense(names: Sequence[str], options: PruneOptions) -> str:
    first = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    verb = "weight is" if len(names) == 1 else "weights are"
    return f"{len(names)} {verb} too small for a block of {options.block}, left dense: {first}"
