"""Pruning with inputs and without training: which calls ask for it, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import training_options as training
from .watching import Watching

if TYPE_CHECKING:
    from graphprune import Model, PruneResult

_TRAINING = (
    *("recipe", "resume", "loss", "distill_temp", "pretrain_epochs", "warmup_epochs", "warmup_steps"),
    *("search_epochs", "finetune_epochs", "max_steps", "lr", "optimizer", "scheduler", "momentum"),
    *("weight_decay", "grad_clip", "ema", "augment", "amp", "checkpoint_minutes", "mask_lr"),
    *("mask_optimizer", "mask_scheduler", "mask_momentum", "mask_weight_decay", "init_temp", "final_temp"),
    *("temp_unit", "temp_schedule", "mask_every", "mask_init", "budget_anneal", "snap", "rounds"),
    *("init_from", "refit", "trainable"),
)
"""Flags that only training has."""

SAFE = 0.1
"""The share of channels that can go without looking at any input."""


def trains(values: Mapping[str, Any]) -> bool:
    """Whether a call asks for training. Raises OptionError for flags that contradict one another."""
    from graphprune.calibration.criteria import all_data_criteria
    from graphprune.errors import OptionError

    method = values["method"]
    flags = [name for name in _TRAINING if values[name]]
    if values["structure"] == "branch" or values["compensate"] is not None or method in all_data_criteria():
        if flags:
            what = "--structure branch" if values["structure"] == "branch" else "--compensate"
            what = f"--method {method}" if method in all_data_criteria() else what
            raise OptionError(
                f"--{flags[0].replace('_', '-')} is for training, and {what} does not train: leave one of them out"
            )
        return False
    if values["data"] is None:
        if flags:
            raise OptionError(
                f"--{flags[0].replace('_', '-')} goes with a method that trains: give --data too"
            )
        return False
    return bool(flags) or method is not None


def words(values: Mapping[str, Any], watching: Watching) -> dict[str, Any]:
    """What api.prune is told besides. Raises OptionError, DataError."""
    from graphprune.errors import OptionError

    if values["data"] is None:
        for name in ("eval_data", "eval", "resize", "mean", "std", "samples"):
            if values[name]:
                raise OptionError(
                    f"--{name.replace('_', '-')} goes with a method that looks at inputs: give --data too"
                )
        return {"compensate": values["compensate"], "progress": watching.count}
    return {
        "data": training.reading(values, values["data"]),
        "samples": values["samples"],
        "compensate": values["compensate"],
        "progress": watching.count,
    }


def metrics(values: Mapping[str, Any], before: Model, result: PruneResult) -> dict[str, float]:
    """The metric on --eval-data, before and after. Raises OptionError, DataError."""
    from graphprune.calibration.evaluating import accuracy
    from graphprune.errors import OptionError

    if values["eval"] not in (None, "accuracy"):
        raise OptionError(f"--eval {values['eval']} is for methods that train; without training: accuracy")
    labelled = training.reading(values, values["eval_data"])
    assert labelled is not None
    return {
        "accuracy before": accuracy(before.ir, labelled),
        "accuracy after": accuracy(result.model.ir, labelled),
    }


def advice(values: Mapping[str, Any], result: PruneResult) -> list[str]:
    """What some inputs would buy, where there were none."""
    if values["data"] is not None or result.plan.method != "magnitude" or result.plan.structure != "channel":
        return []
    budget = result.plan.budget
    achieved = 1 - budget["achieved"] if budget["kind"] == "latency" else budget["achieved"]
    if achieved <= SAFE:
        return []
    return [
        f"without data about {100 * SAFE:.0f} % of the channels is safe to remove; with --data and 256 unlabelled "
        "inputs, half a minute of --method reconstruct keeps far more (ResNet-20 at 30 %: 79 % right instead of 23)"
    ]
