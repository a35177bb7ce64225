"""A recipe: every number of a training run, its limits, and its TOML file.

Imports no torch: reading a recipe is quick.
"""

from __future__ import annotations

import math
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from graphprune.errors import OptionError
from graphprune.lookup import hint
from graphprune.recipes.schedules import SCHEDULERS, TEMPERATURES
from graphprune.recipes.toml_values import fit, to_toml
from graphprune.writing import write_text

OPTIMIZERS = ("adam", "adamw", "muon", "rmsprop", "sgd")
LOSSES = ("cross-entropy", "distill", "layers", "mse")
INIT_FROM = ("reconstruct",)
TRAINABLE = ("all", "biases-and-norms")
MASK_INITS = ("activation", "constant", "taylor", "weight", "weight-activation")

LARGEST_FILE = 1 << 18
"""Bytes of a recipe; all flags together need two thousand."""

Check = Callable[[Any], str | None]
"""Value -> what to do instead, or None where the value is fine."""


def _numbers(allowed: Callable[[float], bool], advice: str) -> Check:
    return lambda value: None if -math.inf < value < math.inf and allowed(value) else advice


def _one_of(*names: str, prefix: str | None = None) -> Check:
    def check(value: str) -> str | None:
        fine = value in names or (prefix is not None and value.startswith(prefix))
        return None if fine else hint(value, names)

    return check


_FROM_ZERO = _numbers(lambda v: v >= 0, "give a number from 0")
_FROM_ONE = _numbers(lambda v: v >= 1, "give a number from 1")
_POSITIVE = _numbers(lambda v: v > 0, "give a number above 0")
_SHARE = _numbers(lambda v: 0 <= v <= 1, "give a share from 0 to 1")
_BELOW_ONE = _numbers(lambda v: 0 <= v < 1, "give a number from 0 to below 1")


def _setting(default: Any, meaning: str, check: Check | None = None) -> Any:
    return field(default=default, metadata={"meaning": meaning, "check": check})


_UNSAID = {
    "mask_lr": 0.1,
    "init_temp": 10.0,
    "final_temp": 1e-4,
    "budget_anneal": 0.5,
    "snap": 0.2,
    "rounds": 1,
}
"""Settings that a method may have values of its own for."""


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the recipe ``smart``. Epochs may be fractions; None leaves it to the method.

    Raises OptionError, naming the flag, for a value of the wrong type or out of range.
    """

    pretrain_epochs: float = _setting(0.0, "epochs of plain training before the search", _FROM_ZERO)
    warmup_epochs: float = _setting(
        0.25, "epochs in which the learning rate rises; part of the others", _FROM_ZERO
    )
    warmup_steps: int | None = _setting(None, "warm-up in steps; wins over warmup-epochs", _FROM_ZERO)
    search_epochs: float = _setting(4.0, "epochs in which masks and weights train together", _FROM_ZERO)
    finetune_epochs: float = _setting(4.0, "epochs after the masks are fixed", _FROM_ZERO)
    max_steps: int | None = _setting(None, "end the training after so many steps", _FROM_ONE)
    batch_size: int = _setting(128, "samples in a step", _FROM_ONE)
    lr: float = _setting(1e-3, "learning rate of the weights", _FROM_ZERO)
    mask_lr: float | None = _setting(None, "learning rate of the masks", _FROM_ZERO)
    optimizer: str = _setting("adam", "optimiser of the weights", _one_of(*OPTIMIZERS))
    mask_optimizer: str = _setting("adam", "optimiser of the masks", _one_of(*OPTIMIZERS))
    scheduler: str = _setting("cosine", "learning rate over the whole training", _one_of(*SCHEDULERS))
    mask_scheduler: str = _setting("constant", "masks' learning rate over the search", _one_of(*SCHEDULERS))
    momentum: float = _setting(0.9, "momentum; beta 1 of adam and adamw", _BELOW_ONE)
    mask_momentum: float = _setting(0.9, "momentum of the masks' optimiser", _BELOW_ONE)
    weight_decay: float = _setting(0.0, "weight decay of the weights", _FROM_ZERO)
    mask_weight_decay: float = _setting(0.0, "weight decay of the masks", _FROM_ZERO)
    grad_clip: float = _setting(1.0, "largest norm of the weights' gradient; 0: no limit", _FROM_ZERO)
    init_temp: float | None = _setting(None, "temperature at the start of the search", _POSITIVE)
    final_temp: float | None = _setting(None, "temperature at its end", _POSITIVE)
    temp_unit: str = _setting(
        "std",
        "std: temperatures in standard deviations of the initial masks; raw: as given",
        _one_of("std", "raw"),
    )
    temp_schedule: str = _setting("exp", "how the temperature falls", _one_of(*TEMPERATURES))
    mask_every: int = _setting(1, "update the masks every so many steps", _FROM_ONE)
    mask_init: str = _setting("weight", "what the masks start from", _one_of(*MASK_INITS))
    init_from: str = _setting(
        "",
        "reconstruct: masks start from the decision that this method makes without training",
        lambda value: _one_of(*INIT_FROM)(value) if value else None,
    )
    budget_anneal: float | None = _setting(
        None, "share of the search in which the budget falls to its target; 0: at once, as published", _SHARE
    )
    snap: float | None = _setting(
        None, "last share of the search, with whole units only; 0: as published", _SHARE
    )
    rounds: int | None = _setting(None, "prune in so many rounds, training between them", _FROM_ONE)
    refit: bool = _setting(
        False, "once masks are fixed, fit kept weights to the original's activations by least squares"
    )
    trainable: str = _setting(
        "all", "what trains once masks are fixed: all, or biases-and-norms", _one_of(*TRAINABLE)
    )
    loss: str = _setting(
        "distill",
        "distill (from the original model), cross-entropy, mse, or python:package.module:function",
        _one_of(*LOSSES, prefix="python:"),
    )
    distill_temp: float = _setting(1.0, "temperature of the distillation", _POSITIVE)
    ema: float = _setting(0.0, "decay of the weights' moving average; 0: none", _BELOW_ONE)
    augment: str = _setting(
        "none", "none, or light: random flips and shifts of images", _one_of("none", "light")
    )
    amp: str = _setting("none", "none, or bf16: mixed precision", _one_of("none", "bf16"))
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1, ...")
    threads: int | None = _setting(None, "threads of the processor", _FROM_ONE)
    seed: int = _setting(0, "seed of everything random", _FROM_ZERO)
    checkpoint_minutes: float = _setting(10.0, "minutes between checkpoints", _FROM_ZERO)

    def __post_init__(self) -> None:
        kinds = typing.get_type_hints(Recipe)
        for entry in fields(self):
            value, check = getattr(self, entry.name), entry.metadata["check"]
            if value is None and entry.default is None:
                continue
            try:
                value = fit(value, kinds[entry.name])
            except ValueError as error:
                raise OptionError(f"--{_flag(entry.name)} {value!r}: give {error}") from None
            object.__setattr__(self, entry.name, value)
            advice = check and check(value)
            if advice:
                raise OptionError(f"--{_flag(entry.name)} {_plain(value)}: {advice}")
        if None not in (self.init_temp, self.final_temp):
            self._check_temperatures()
        if None not in (self.budget_anneal, self.snap):
            self._check_overlap()

    def own(self, name: str) -> float:
        """The setting ``name``, or what holds where neither the recipe nor the method says."""
        value = getattr(self, name)
        return float(_UNSAID[name] if value is None else value)

    def completed(self, defaults: Mapping[str, float]) -> Recipe:
        """Settings that are left open, as ``defaults`` have them (those of a method). Raises OptionError."""
        done = replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})  # type: ignore[arg-type]
        done._check_temperatures()
        done._check_overlap()
        return done

    # What is compared here may be left open; then only a method's own values tell whether it fits.

    def _check_temperatures(self) -> None:
        if self.own("final_temp") > self.own("init_temp"):
            raise OptionError(
                f"--final-temp {self.own('final_temp'):g} is above --init-temp {self.own('init_temp'):g}: "
                "the temperature falls, so give a lower one"
            )

    def _check_overlap(self) -> None:
        if self.own("budget_anneal") + self.own("snap") > 1 + 1e-9:
            raise OptionError(
                f"--budget-anneal {self.own('budget_anneal'):g} and --snap {self.own('snap'):g} overlap: "
                "their sum may be 1 at most"
            )

    @property
    def total_epochs(self) -> float:
        """Epochs of all phases together; the learning rate has one schedule over them."""
        return self.pretrain_epochs + self.search_epochs + self.finetune_epochs


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    found = resources.files("graphprune.recipes").iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in found if entry.name.endswith(".toml"))


def read_recipe(name_or_path: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a shipped recipe or of a TOML file: flag name with underscores -> value.

    ``known`` has every allowed flag with its type, as ``typing.get_type_hints(command)`` gives them;
    texts may be written as numbers or lists of numbers (``resize = 32``, ``mean = [0.5, 0.5]``).

    Raises OptionError for an unknown recipe or key (with the nearest one), a value of another type, and a
    file that cannot be read.
    """
    found: dict[str, Any] = {}
    for key, value in _parse(name_or_path).items():
        name = key.replace("-", "_")
        if name not in known:
            advice = hint(_flag(name), [_flag(k) for k in known], "graphprune prune --help lists the flags")
            raise OptionError(f"recipe {name_or_path}: unknown key {key!r}: {advice}")
        if name in found:
            raise OptionError(f"recipe {name_or_path}: {_flag(name)} is there twice: keep one")
        try:
            found[name] = fit(value, known[name])
        except ValueError as error:
            raise OptionError(f"recipe {name_or_path}: {key} = {value!r}: give {error}") from None
    return found


def write_recipe(path: Path, values: Mapping[str, Any], *, force: bool = False) -> Path:
    """Write ``recipe_text``. Raises OptionError where the file exists (unless ``force``) or cannot be written."""
    return write_text(path, recipe_text(values), force=force)


def recipe_text(values: Mapping[str, Any]) -> str:
    """``values`` (flag name with underscores -> value) as a recipe file, so that ``read_recipe`` gives them back.

    Flags that are not a Recipe's come first, by name, then the Recipe's in its own order; what is None is
    left out. Raises OptionError for a value that is not valid text.
    """
    order = {entry.name: entry for entry in fields(Recipe)}
    names = sorted(set(values) - set(order)) + [name for name in order if name in values]
    lines = ["# Run it again: graphprune prune MODEL --recipe FILE"]
    for name in names:
        if values[name] is None:
            continue
        meaning = f"  # {order[name].metadata['meaning']}" if name in order else ""
        lines.append(f"{_flag(name)} = {to_toml(values[name])}{meaning}")
    text = "\n".join(lines) + "\n"
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise OptionError("cannot write the recipe: a name in it is not valid text, so rename that file")
    return text


def _parse(name_or_path: str) -> dict[str, Any]:
    shipped = shipped_recipes()
    path = Path(name_or_path)
    try:
        if name_or_path in shipped:
            folder = resources.files("graphprune.recipes")
            data = folder.joinpath(f"{name_or_path}.toml").read_bytes()
        elif path.exists() or path.suffix == ".toml" or path.name != name_or_path:
            with path.open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
        else:
            raise OptionError(
                f"unknown recipe {name_or_path!r}: {hint(name_or_path, shipped)} or give a file"
            )
        if len(data) > LARGEST_FILE:
            raise OptionError(
                f"recipe {name_or_path} is longer than {LARGEST_FILE} bytes: it is another file"
            )
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise OptionError(f"cannot read recipe {name_or_path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
        raise OptionError(f"recipe {name_or_path} is not a TOML file: {error}") from error


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
