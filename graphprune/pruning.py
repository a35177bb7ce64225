"""``prune`` for whole channels: analysis -> scores -> decision -> surgery -> proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis, analyze_model
from graphprune.budget import Budget, Decision, decide
from graphprune.criteria import find_criterion
from graphprune.errors import BudgetError, FidelityError, OptionError, PlanError
from graphprune.groups import Group
from graphprune.plan import Plan
from graphprune.planning import describe
from graphprune.proof import Fidelity, verify_models
from graphprune.selection import Pool, build_pools
from graphprune.surgery import apply


@dataclass(frozen=True)
class PruneOptions:
    """Everything ``prune`` can be told; the command line has the same words.

    allocation: ``uniform`` keeps more accuracy without training than ``global`` on the trained networks it
        was measured on (README, "Choosing"), so it is the default.
    multiple_of: None aligns automatically (kept channels a multiple of 16 in groups 64 or wider, of 8
        from 32), 1 leaves counts free. ratios: (glob, share) pairs. only / exclude: globs on node or
        weight names.
    """

    budget: Budget
    method: str = "magnitude"
    allocation: str = "uniform"
    multiple_of: int | None = None
    min_channels: int = 1
    ratios: Sequence[tuple[str, float]] = ()
    only: Sequence[str] = ()
    exclude: Sequence[str] = ()
    attention: str = "heads"
    allow_inexact: bool = False
    seed: int = 0
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.multiple_of is not None and self.multiple_of < 1:
            raise OptionError(f"--multiple-of {self.multiple_of}: give auto or a number from 1")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed}: give a number from 0")
        if self.min_channels < 1:
            raise OptionError(f"--min-channels {self.min_channels}: give a number from 1")
        for pattern, ratio in self.ratios:
            if not 0 <= ratio < 1:
                raise OptionError(f"--ratio {pattern}={ratio:g}: give a share from 0 to below 1")


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
    model: ir.Model, name: str, options: PruneOptions, *, sha256: str, notes: list[str] | None = None
) -> Pruned:
    """Remove whole channels of ``model`` (left untouched) under the budget, and prove the result.

    Raises BudgetError where the budget cannot be reached, OptionError for options that match nothing,
    FidelityError where the result does not equal the masked original.
    """
    analysis = analyze_model(
        model,
        name,
        input_shapes=options.input_shapes,
        attention=options.attention,
        allow_inexact=options.allow_inexact,
        notes=notes,
    )
    decision = _decide(analysis, options)
    surgery = apply(model, analysis.coupling, decision.alive)
    cost = analysis.cost
    plan = describe(
        analysis.coupling,
        decision.alive,
        surgery,
        source_sha256=sha256,
        method=options.method,
        seed=options.seed,
        budget={
            "kind": options.budget.kind,
            "requested": options.budget.requested,
            "achieved": decision.achieved,
        },
        params={"before": cost.total_params, "after": cost.params(decision.alive)},
        macs={"before": cost.total_macs, "after": cost.macs(decision.alive)},
    )
    try:
        fidelity = verify_models(model, surgery.model, plan, input_shapes=options.input_shapes)
    except PlanError as error:  # our own plan: it cannot be the user's mistake
        raise FidelityError(
            f"{error}: this is a bug in graphprune, nothing was written, please report it"
        ) from error
    plan.fidelity = fidelity.to_dict()
    if not fidelity.holds:
        raise FidelityError(
            f"{fidelity.message}: this is a bug in graphprune, nothing was written, please report it"
        )
    gone = analysis.coupling.removable & ~decision.alive
    removed = int(analysis.groups.producers[gone].sum())
    return Pruned(surgery.model, plan, fidelity, analysis, removed)


def _decide(analysis: Analysis, options: PruneOptions) -> Decision:
    groups = analysis.groups
    if not any(g.prunable for g in groups):
        why = Counter(g.reason for g in groups if g.reason).most_common(1)
        raise BudgetError(
            "nothing in this model can be pruned by whole channels: "
            + (why[0][0] if why else "it has no convolution or matrix product with stored weights")
        )
    movable = ~analysis.coupling.frozen
    for group in groups:
        if group.prunable and not _selected(group, options):
            movable[group.channels] = False
    scores = find_criterion(options.method).function(groups, np.random.default_rng(options.seed))
    pools = build_pools(
        groups,
        scores,
        movable=movable,
        multiple_of=options.multiple_of,
        min_channels=options.min_channels,
    )
    return decide(
        groups,
        pools,
        options.budget,
        analysis.cost,
        allocation=options.allocation,
        ratios=_ratios(analysis, pools, options),
    )


def _selected(group: Group, options: PruneOptions) -> bool:
    if options.only and not any(_matches(group, p) for p in options.only):
        return False
    return not any(_matches(group, p) for p in options.exclude)


def _matches(group: Group, pattern: str) -> bool:
    """A glob matches a group by the name of a producer node or of the weight that makes its channels."""
    names = [n.name for n in group.producers] + list(group.weights)
    return any(fnmatchcase(n, pattern) for n in names)


def _ratios(analysis: Analysis, pools: Sequence[Pool], options: PruneOptions) -> dict[int, float]:
    for pattern in (*options.only, *options.exclude, *(p for p, _ in options.ratios)):
        if not any(_matches(g, pattern) for g in analysis.groups):
            raise OptionError(
                f"no node or weight name matches {pattern!r}: see graphprune analyze for the names"
            )
    found: dict[int, float] = {}
    for pattern, ratio in options.ratios:
        for number, pool in enumerate(pools):
            if any(_matches(g, pattern) for g in pool.groups):
                found[number] = ratio
    return found
