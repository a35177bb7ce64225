"""What changes from step to step, as pure functions of the step: nothing here needs a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from graphprune.lookup import lookup

LAMBDA_FINAL = 0.01
"""Where YOLOv5's linear decay ends (its ``lrf``)."""

POLY_POWER = 0.9
"""The power of BiSeNetV2's polynomial decay."""

SCHEDULERS: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
    "linear": lambda p: 1 - p,
    "lambda": lambda p: (1 - p) * (1 - LAMBDA_FINAL) + LAMBDA_FINAL,
    "poly": lambda p: (1 - p) ** POLY_POWER,
}
"""Name -> factor of the learning rate at progress 0..1."""

TEMPERATURES: dict[str, Callable[[float, float, float], float]] = {
    "exp": lambda p, first, last: first * (last / first) ** p,
    "linear": lambda p, first, last: last + (first - last) * (1 - p),
    "inverse": lambda p, first, last: last + first * (1 - (last / first) ** (1 - p)),
}
"""Name -> temperature at progress 0..1 between ``first`` and ``last``."""


def lr_factor(step: int, total_steps: int, warmup_steps: int, scheduler: str) -> float:
    """Factor of the learning rate at ``step`` (from 0) of one schedule over the whole training.

    Warm-up is a linear ramp that multiplies the schedule (as YOLOv5 does: the decay runs on beneath it).
    Raises OptionError for an unknown scheduler.
    """
    decay = lookup(SCHEDULERS, scheduler, "scheduler")
    ramp = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    return ramp * decay(min(1.0, step / max(1, total_steps)))


def set_lr(param_groups: Iterable[dict[str, Any]], factor: float) -> None:
    """Set every group's ``lr`` to ``factor`` times its ``initial_lr``."""
    for group in param_groups:
        group["lr"] = group["initial_lr"] * factor


def temperature(step: int, steps: int, init: float, final: float, schedule: str) -> float:
    """Temperature of search step ``step`` (from 0) of ``steps``: ``init`` first, ``final`` last.

    ``exp`` is algorithm 1's tau_s (tau_e / tau_s)^(i / (N - 1)); ``inverse`` is its mirror image, which
    stays high and falls late. A search of one step has ``final``. Raises OptionError for another name.
    """
    curve = lookup(TEMPERATURES, schedule, "temperature schedule")
    return curve(progress(step, steps), init, final)


def budget_share(step: int, steps: int, anneal: float) -> float:
    """Share 0..1 of the way from keeping everything to the target budget at search step ``step``.

    1 - (1 - p / anneal)^3 over the first ``anneal`` of the search, then 1; with ``anneal`` 0 always 1,
    which is the published algorithm.
    """
    p = progress(step, steps)
    return 1.0 if p >= anneal else 1 - (1 - p / anneal) ** 3


def progress(step: int, steps: int) -> float:
    """Share 0..1 of a search of ``steps`` that step ``step`` (from 0) has reached; its last step is at 1."""
    return min(1.0, step / (steps - 1)) if steps > 1 else 1.0
