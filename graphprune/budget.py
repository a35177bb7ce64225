"""A budget and ordered steps -> what goes, exactly: within one step of the request, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.cost import CostModel
from graphprune.errors import BudgetError, OptionError
from graphprune.groups import Groups
from graphprune.selection import Pool, Step, without

KINDS = ("sparsity", "params", "macs", "latency")

Measure = Callable[[np.ndarray], float]
"""A decision (bool ``[components]``, complete) -> the share that it removes."""


class OutOfReach(BudgetError):
    """Too little can be removed; ``most`` is the share that can."""

    def __init__(self, message: str, most: float) -> None:
        super().__init__(message)
        self.most = most


@dataclass(frozen=True)
class Budget:
    """What must hold at the end: share of prunable output channels, parameters or MACs removed; of ``latency`` the
    share that stays.

    measure: of ``latency``, which the graph alone does not tell: the share of it that a decision removes.
    """

    kind: str
    requested: float
    measure: Measure | None = None

    @property
    def wanted(self) -> float:
        """The share to remove."""
        return 1 - self.requested if self.kind == "latency" else self.requested

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"unknown budget {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.kind == "latency" and not 0 < self.requested <= 1:
            raise OptionError(
                f"--latency {self.requested:g} is out of range: give the share of the latency that may stay, above 0 "
                "and up to 1"
            )
        if self.kind != "latency" and not 0 <= self.requested < 1:
            raise OptionError(
                f"--{self.kind} {self.requested:g} is out of range: give the share to remove, from 0 to below 1"
            )


@dataclass(frozen=True, eq=False)
class Decision:
    """``alive`` (bool ``[components]``) and the share it achieves.

    details: what else the plan says of its budget. notes: sentences for the user.
    """

    alive: np.ndarray
    achieved: float
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def decide(
    groups: Groups,
    pools: Sequence[Pool],
    budget: Budget,
    cost: CostModel,
    *,
    allocation: str = "global",
    ratios: dict[int, float] | None = None,
) -> Decision:
    """Choose steps in rank order until the budget is met as closely as the steps allow.

    ``allocation`` ranks steps by score over the whole model (``global``) or by the share of their own
    pool already gone (``uniform``). ``ratios`` (pool number -> share) fixes single pools.

    Raises ValueError for another allocation, OutOfReach, naming the best reachable value, when too little can
    be removed; BudgetError where ``ratios`` alone remove too much.
    """
    measure = measure_of(groups, budget, cost)
    alive = np.ones(groups.coupling.count, bool)
    ratios = ratios or {}
    for number, ratio in ratios.items():
        for step in pools[number].steps:
            if step.share > ratio + 1e-9:
                break
            alive[step.channels] = False
    steps = [s for i, pool in enumerate(pools) if i not in ratios for s in pool.steps]
    if allocation == "uniform":
        steps.sort(key=lambda s: s.share)
    elif allocation == "global":
        steps.sort(key=lambda s: s.key)
    else:
        raise ValueError(f"steps are ranked by key (global) or by share (uniform), not by {allocation!r}")
    _check_reachable(steps, alive, measure, budget)
    chosen = _prefix(steps, alive, measure, budget.wanted)
    alive = without(alive, steps[:chosen])
    alive = _fill(steps[chosen:], alive, measure, budget.wanted)
    return Decision(groups.coupling.grids.complete(alive), measure(alive))


def measure_of(groups: Groups, budget: Budget, cost: CostModel) -> Measure:
    """Share removed under a decision, which need not be complete. Raises ValueError for a latency without a measure."""
    complete, kind = groups.coupling.grids.complete, budget.kind
    if kind == "latency":
        found = budget.measure
        if found is None:
            raise ValueError("a budget of latency needs what measures it")
        return lambda alive: found(complete(alive))
    if kind == "sparsity":
        free = np.flatnonzero(groups.coupling.removable & (groups.producers > 0))
        weights = groups.producers[free]
        total = max(int(weights.sum()), 1)
        return lambda alive: float(weights[~complete(alive)[free]].sum()) / total
    if kind == "params":
        return lambda alive: 1 - cost.params(complete(alive)) / max(cost.total_params, 1)
    return lambda alive: 1 - cost.macs(complete(alive)) / max(cost.total_macs, 1)


def _check_reachable(steps: list[Step], alive: np.ndarray, measure: Measure, budget: Budget) -> None:
    most = measure(without(alive, steps))
    last = measure(without(alive, steps[:-1])) if steps else most
    if budget.wanted > most + max(most - last, 1e-9):
        raise OutOfReach(
            f"--{budget.kind} {budget.requested:g} cannot be reached: at most {most:.4f} can be removed here; "
            "ask for less, or relax --min-channels, --exclude or --allow-inexact",
            most,
        )
    fixed = measure(alive)
    if fixed > budget.wanted + 1e-9 and fixed > 0:
        raise BudgetError(
            f"--ratio alone removes {fixed:.4f}, more than --{budget.kind} {budget.requested:g}: lower the ratios"
        )


def _prefix(steps: list[Step], alive: np.ndarray, measure: Measure, want: float) -> int:
    """Largest number of leading steps that stays within ``want`` (removal only ever grows)."""
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(without(alive, steps[:middle])) <= want + 1e-12:
            low = middle
        else:
            high = middle - 1
    return low


def _fill(steps: list[Step], alive: np.ndarray, measure: Measure, want: float) -> np.ndarray:
    """Use what is left of the budget: smaller steps that still fit, then the nearest end."""
    closed: set[int] = set()
    over: np.ndarray | None = None
    for step in steps:
        if step.pool in closed:
            continue
        trial = without(alive, [step])
        if measure(trial) <= want + 1e-12:
            alive = trial
            over = None
            continue
        closed.add(step.pool)
        if over is None or measure(trial) < measure(over):
            over = trial
    if over is not None and measure(over) - want < want - measure(alive):
        return over
    return alive
