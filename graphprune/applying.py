"""A plan carried out again: the same channels, blocks, weights or branches out of the same original."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.branches.pruning import branches_of, cut_branches
from graphprune.branches.removal import Removal
from graphprune.budget import Budget, Decision
from graphprune.choosing import PruneOptions
from graphprune.errors import PlanError
from graphprune.models import Model
from graphprune.patterns import block_mask
from graphprune.plan import Plan, beside_plan
from graphprune.planning import alive_after
from graphprune.pruning import Pruned, analyze, cut
from graphprune.sidecar import load_blocks
from graphprune.writeback import stored_tensors
from graphprune.zeroing import WeightDecision, zero_weights

PATHS = ("removed", "contracted", "gates", "kept_only", "blocks", "patterns", "branches", "renamed", "added")
"""Fields that say what the result is."""


def apply_plan(source: Model, plan: Plan, sidecar: Path | None = None) -> Pruned:
    """Prune ``source`` exactly as ``plan`` says, and prove the result.

    ``sidecar``: the ``.blocks.npz`` that was written with the plan; N:M plans need it, because it alone says which
    weights of a group stay. With the original's weights the result is the file that the plan was written with.

    Raises PlanError where the plan was made from another model, its weights were trained or refitted (they are in
    the pruned file alone), or it contradicts the model; FidelityError where the result is not the masked original.
    """
    if plan.source_sha256 != source.sha256():
        raise PlanError(f"the plan was not made from {source.name}: give the file that was pruned")
    if plan.weights != "original":
        raise PlanError(
            "the weights were trained or refitted, and are in the pruned file alone: a plan can be applied again where "
            "it has weights: original"
        )
    if not plan.budget:
        raise PlanError("the plan does not say its budget: it was changed, or was not written by graphprune")
    options = options_of(plan)
    carry_out = {"channel": _channels, "block": _weights, "nm": _weights, "branch": _branches}[plan.structure]
    pruned = carry_out(source, plan, options, sidecar)
    pruned.plan.calibration, pruned.plan.budget = plan.calibration, plan.budget
    for name in PATHS:
        if getattr(pruned.plan, name) != getattr(plan, name):
            raise PlanError(
                f"the plan's {name!r} do not follow from what it removes: it was changed, or made by another version"
            )
    return pruned


def sidecar_of(plan: str | os.PathLike[str]) -> Path | None:
    """``OUT.plan.json`` -> ``OUT.blocks.npz``, where there is one."""
    sidecar = beside_plan(Path(plan), ".blocks.npz")
    return sidecar if sidecar.exists() else None


def options_of(plan: Plan) -> PruneOptions:
    """What the plan was made with, as far as it says."""
    reading: dict[str, Any] = dict(plan.analysis)
    shapes = {name: tuple(sizes) for name, sizes in reading.pop("input_shapes", {}).items()}
    if plan.structure == "nm":
        reading["nm"] = plan.pattern
    return PruneOptions(
        Budget(plan.budget["kind"], plan.budget["requested"]),
        method=plan.method,
        structure=plan.structure,
        seed=plan.seed,
        input_shapes=shapes,
        **reading,
    )


def _channels(source: Model, plan: Plan, options: PruneOptions, sidecar: Path | None) -> Pruned:
    analysis = analyze(source.ir, source.name, options, source.notes)
    alive = alive_after(analysis.coupling, plan.removed)
    decision = Decision(alive, plan.budget["achieved"])
    return cut(source.ir, source.ir, analysis, decision, options, sha256=plan.source_sha256)


def _weights(source: Model, plan: Plan, options: PruneOptions, sidecar: Path | None) -> Pruned:
    tensors = stored_tensors(source.ir, [*plan.blocks, *plan.patterns])
    shapes = {name: tuple(int(n) for n in t.shape.numpy()) for name, t in tensors.items()}
    masks = {name: block_mask(name, shapes[name], entry) for name, entry in plan.blocks.items()}
    masks |= _kept_weights(plan, shapes, sidecar) if plan.patterns else {}
    fields = {"structure": plan.structure, "pattern": plan.pattern}
    fields |= {name: getattr(plan, name) for name in ("blocks", "patterns") if getattr(plan, name)}
    decision = WeightDecision(masks, fields, plan.budget["achieved"], removed=plan.removed)
    return zero_weights(source, source.ir, decision, options)


def _kept_weights(
    plan: Plan, shapes: dict[str, tuple[int, ...]], sidecar: Path | None
) -> dict[str, np.ndarray]:
    """Of N:M patterns: weight name -> bool of its shape."""
    if sidecar is None:
        raise PlanError(
            f"a plan of {plan.pattern} does not say which weights stay, the .blocks.npz written with it does: put it "
            "beside the plan"
        )
    before = {old: new for new, old in plan.renamed.items()}
    packed = load_blocks(sidecar)
    found = {}
    for name, shape in shapes.items():
        own = packed.get(before.get(name, name))
        if own is None or own.shape != shape:
            raise PlanError(f"{sidecar} has no weight {name!r} of this shape: it belongs to another model")
        found[name] = own.dense() != 0
    return found


def _branches(source: Model, plan: Plan, options: PruneOptions, sidecar: Path | None) -> Pruned:
    analysis = analyze(source.ir, source.name, options, source.notes)
    branches, macs = branches_of(source, analysis)
    chosen = frozenset(i for i, b in enumerate(branches) if b.plan_entry() in plan.branches)
    return cut_branches(
        source, analysis, Removal(analysis.graph, branches, macs, options.budget), chosen, options
    )
