"""Options and scores -> which coupled channels stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.allocation import Layer, find_allocation
from graphprune.budget import Budget, Decision, decide
from graphprune.contractions import contraction_weights
from graphprune.criteria.scoring import mean_over_slices
from graphprune.engine import Engine
from graphprune.errors import BudgetError, OptionError
from graphprune.groups import Group
from graphprune.lookup import hint
from graphprune.notation import STRUCTURES, parse_nm
from graphprune.selection import DEFAULT_RULE, Pool, Rule, build_pools

if TYPE_CHECKING:
    from graphprune.analysis import Analysis

BUDGETS = ("sparsity", "params", "macs", "latency")
"""Kinds of budget; a call names one."""


@dataclass(frozen=True)
class PruneOptions:
    """Everything ``prune`` can be told besides training; the command line has the same words.

    structure: ``channel``, ``block`` (``block`` gives its sizes) or ``nm`` (``nm``: kept:of, ``nm_axis``: input
        or output). max_layer_sparsity: no weight loses more of its blocks.

    allocation: ``uniform`` keeps more accuracy without training than ``global`` on the trained networks it
        was measured on (README, "Choosing"), so it is the default of one-shot methods; trained ones learn
        the shares (``global``).
    multiple_of: None aligns automatically, as ``rule`` says (kept channels a multiple of 16 in groups 64 or wider, of
        8 from 32; under a budget of latency as measured), 1 leaves counts free. engine: how latency is measured.
    ratios: (glob, share) pairs. only / exclude: globs on node or weight names.
    """

    budget: Budget
    method: str = "magnitude"
    structure: str = "channel"
    block: str = "16x8x1x1"
    nm: str = "2:4"
    nm_axis: str = "input"
    max_layer_sparsity: float = 0.98
    allocation: str = "uniform"
    multiple_of: int | None = None
    rule: Rule = DEFAULT_RULE
    engine: Engine = field(default_factory=Engine)
    min_channels: int = 1
    ratios: Sequence[tuple[str, float]] = ()
    only: Sequence[str] = ()
    exclude: Sequence[str] = ()
    attention: str = "heads"
    allow_inexact: bool = False
    seed: int = 0
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.structure not in STRUCTURES:
            raise OptionError(f"unknown structure {self.structure!r}: {hint(self.structure, STRUCTURES)}")
        if self.multiple_of is not None and self.multiple_of < 1:
            raise OptionError(f"--multiple-of {self.multiple_of}: give auto or a number from 1")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed}: give a number from 0")
        if self.min_channels < 1:
            raise OptionError(f"--min-channels {self.min_channels}: give a number from 1")
        for pattern, ratio in self.ratios:
            if not 0 <= ratio < 1:
                raise OptionError(f"--ratio {pattern}={ratio:g}: give a share from 0 to below 1")

    def reading(self) -> dict[str, Any]:
        """What a plan says of how the original was read."""
        shapes = {name: list(sizes) for name, sizes in self.input_shapes.items()}
        return {"attention": self.attention, "allow_inexact": self.allow_inexact, "input_shapes": shapes}


def requested_budget(structure: str, nm: str, given: Mapping[str, float | None]) -> Budget:
    """The one budget among ``given`` (BUDGETS -> share), as ``structure`` takes it.

    Raises OptionError for another number of budgets, or one that the structure does not take.
    """
    asked = {k: v for k, v in given.items() if v is not None}
    if structure == "nm":
        if asked:
            raise OptionError(f"--{next(iter(asked))} does not go with --structure nm: N:M fixes the share")
        keep, of = parse_nm(nm)
        return Budget("sparsity", 1 - keep / of)
    if len(asked) != 1:
        raise OptionError("give exactly one of --sparsity, --params, --macs and --latency")
    if structure != "channel" and "latency" in asked:
        raise OptionError(
            f"--latency goes with --structure channel alone, not with {structure}: prune to another budget, and "
            "compare with graphprune bench"
        )
    if structure == "block" and "sparsity" not in asked:
        raise OptionError("--structure block takes --sparsity: the share of the weights to zero")
    ((kind, requested),) = asked.items()
    return Budget(kind, requested)


def options_from(words: Mapping[str, Any], seed: int, allocation: str | None = None) -> PruneOptions:
    """From the words of ``api.prune``; ``allocation`` is that of the method, where the words name none.

    Raises OptionError.
    """
    given = {k: v for k, v in words.items() if k not in BUDGETS}
    if allocation is not None:
        given.setdefault("allocation", allocation)
    budget = requested_budget(words["structure"], words["nm"], {kind: words.get(kind) for kind in BUDGETS})
    return PruneOptions(budget, **given, seed=seed)


def movable(analysis: Analysis, options: PruneOptions) -> np.ndarray:
    """Coupled channels that may go under the options: bool ``[components]``.

    Raises BudgetError where nothing can, OptionError for a pattern that matches nothing.
    """
    groups = analysis.groups
    if not any(g.prunable for g in groups):
        why = Counter(g.reason for g in groups if g.reason).most_common(1)
        raise BudgetError(
            "nothing in this model can be pruned by whole channels: "
            + (why[0][0] if why else "it has no convolution or matrix product with stored weights")
        )
    check_patterns([_names(g) for g in groups], options)
    found = ~analysis.coupling.frozen
    for group in groups:
        if group.prunable and not is_selected(_names(group), options):
            found[group.channels] = False
    return found


def pools_of(analysis: Analysis, options: PruneOptions, scores: np.ndarray) -> list[Pool]:
    """The order in which channels may go under ``scores`` (float ``[components]``, low goes first)."""
    return build_pools(
        analysis.groups,
        scores,
        movable=movable(analysis, options),
        multiple_of=options.multiple_of,
        rule=options.rule,
        min_channels=options.min_channels,
    )


def choose(analysis: Analysis, options: PruneOptions, scores: np.ndarray) -> Decision:
    """Decide under the budget by ``scores`` (float ``[components]``). Raises BudgetError, OptionError."""
    pools = pools_of(analysis, options, scores)
    find_allocation(options.allocation)
    as_they_are = options.allocation in ("global", "uniform")
    if not as_they_are:
        pools = allocated(pools, analysis, options.allocation, scores)
    return decide(
        analysis.groups,
        pools,
        options.budget,
        analysis.cost,
        allocation=options.allocation if as_they_are else "global",
        ratios=fixed_shares(pools, options),
    )


def allocated(pools: Sequence[Pool], analysis: Analysis, allocation: str, scores: np.ndarray) -> list[Pool]:
    """The pools with steps ranked between pools as ``allocation`` says; the order inside each stays.

    ``scores``: float ``[components]``, those that the pools were ordered by.
    """
    rank, groups = find_allocation(allocation), analysis.groups
    shapes = {w.node: w.shape for w in contraction_weights(analysis.graph)}
    norms = mean_over_slices(groups) ** 2
    found = []
    for pool in pools:
        channels = np.concatenate([s.channels for s in pool.steps] or [np.zeros(0, np.int64)])
        if not channels.size:
            found.append(pool)
            continue
        made_by = [shapes[n] for g in pool.groups for n in g.producers if n in shapes]
        cost = np.maximum(groups.weights[channels], 1).astype(np.float64)
        order = np.arange(channels.size, dtype=float)
        ranks = rank(Layer(order, cost, made_by, partial(norms.take, channels), scores[channels]))
        ends = np.cumsum([s.channels.size for s in pool.steps])
        keys = np.maximum.accumulate([part.mean() for part in np.split(ranks, ends[:-1])])
        steps = tuple(replace(s, key=float(key)) for s, key in zip(pool.steps, keys, strict=True))
        found.append(replace(pool, steps=steps))
    return found


def fixed_shares(pools: Sequence[Pool], options: PruneOptions) -> dict[int, float]:
    """Pool number -> the share that --ratio gives it; a later pattern wins."""
    found: dict[int, float] = {}
    for pattern, ratio in options.ratios:
        for number, pool in enumerate(pools):
            if any(matches(_names(g), pattern) for g in pool.groups):
                found[number] = ratio
    return found


def check_patterns(names: Sequence[Sequence[str]], options: PruneOptions) -> None:
    """Raises OptionError for a glob that matches nothing; ``names``: those of every group or weight."""
    for pattern in (*options.only, *options.exclude, *(p for p, _ in options.ratios)):
        if not any(matches(own, pattern) for own in names):
            raise OptionError(
                f"no node or weight name matches {pattern!r}: see graphprune analyze for the names"
            )


def is_selected(names: Sequence[str], options: PruneOptions) -> bool:
    """Whether --only and --exclude leave what is called by any of ``names``."""
    if options.only and not any(matches(names, p) for p in options.only):
        return False
    return not any(matches(names, p) for p in options.exclude)


def matches(names: Sequence[str], pattern: str) -> bool:
    """Whether a glob matches any of ``names``."""
    return any(fnmatchcase(n, pattern) for n in names)


def _names(group: Group) -> list[str]:
    """Of the producer nodes, and of the weights that make the channels."""
    return [n.name for n in group.producers] + list(group.weights)
