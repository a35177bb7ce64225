"""A target: what an accelerator and its toolchain expect of a model, read from TOML."""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from graphprune.errors import OptionError
from graphprune.formats import all_formats
from graphprune.lookup import hint
from graphprune.notation import AXES, STRUCTURES, parse_block, parse_nm
from graphprune.recipes.toml_values import fit

FORMATS = tuple(all_formats())
CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose weights ``targets.weights`` reads."""


@dataclass(frozen=True)
class Target:
    """What an accelerator expects of a model. Only what is given is asked for, and checked.

    name: how messages call it.
    description: one line for people.
    structure: channel, block or nm: what ``graphprune prune --target`` prunes by default.
    block: ``OxIxKhxKw``, the weight blocks that it skips where they are zero; -1 is a whole axis.
    nm: ``N:M``, the non-zero weights that it takes among M consecutive ones along ``nm_axis``.
    nm_axis: input or output: the axis of a weight along which the M follow one another.
    sparse_operators: operators whose weights it runs sparse; weights of others run dense.
    sparse_grouped: whether grouped convolutions count among those.
    multiple_of: channel counts are a multiple of this, except at the model's inputs and outputs.
    lacks: operators that it cannot run, as ONNX calls them (``domain::Op`` outside the standard domain).
    rewrites: rules that ``graphprune rewrite`` applies besides those for what it lacks.
    format: how ``graphprune prune --target`` stores weights by default; one of ``reads``.
    reads: ways to store pruned weights that its toolchain understands.

    Raises OptionError, with the field and what to write instead, for a value that makes no sense.
    """

    name: str
    description: str = ""
    structure: str | None = None
    block: str | None = None
    nm: str | None = None
    nm_axis: str = "input"
    sparse_operators: tuple[str, ...] = CONTRACTIONS
    sparse_grouped: bool = True
    multiple_of: int | None = None
    lacks: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    format: str | None = None
    reads: tuple[str, ...] = FORMATS

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            for single in value if isinstance(value, tuple) else () if value is None else (value,):
                check(single, f"target {self.name}: {name} = {single!r}")
        if self.structure in ("block", "nm") and getattr(self, self.structure) is None:
            example = {"block": "16x8x1x1", "nm": "2:4"}[self.structure]
            raise OptionError(
                f'target {self.name}: structure = {self.structure!r} needs {self.structure} = "{example}" or the like'
            )
        if self.format is not None and self.format not in self.reads:
            raise OptionError(f"target {self.name}: format = {self.format!r} is not in reads: add it there")

    @property
    def block_sizes(self) -> tuple[int, ...] | None:
        """``block`` as numbers: outputs, inputs, kernel axes (missing ones are 1)."""
        return None if self.block is None else parse_block(self.block)

    @property
    def nm_sizes(self) -> tuple[int, int] | None:
        """``nm`` as numbers: N and M."""
        return None if self.nm is None else parse_nm(self.nm)


def defaults(target: Target) -> dict[str, Any]:
    """What ``target`` says about the options of ``graphprune prune``, by their names; the rest is left out."""
    found = {"structure": target.structure, "multiple_of": target.multiple_of, "format": target.format}
    if target.structure == "block":
        found["block"] = target.block
    if target.structure == "nm":
        found |= {"nm": target.nm, "nm_axis": target.nm_axis}
    return {name: value for name, value in found.items() if value is not None}


def shipped_targets() -> list[str]:
    """Names of the targets that come with the package."""
    found = resources.files("graphprune.targets").iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in found if entry.name.endswith(".toml"))


def find_target(name_or_path: str | Path) -> Target:
    """A shipped target by its name, or the one that a TOML file describes.

    Raises OptionError for an unknown name or key (with the nearest one), a value of another type or one that
    makes no sense, and a file that cannot be read.
    """
    text = str(name_or_path)
    given: dict[str, Any] = {"name": Path(text).stem}
    kinds = {f.name: _KINDS.get(f.name, typing.get_type_hints(Target)[f.name]) for f in fields(Target)}
    for key, value in _parse(text).items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise OptionError(f"target {text}: unknown key {key!r}: {hint(name, kinds)}")
        try:
            fitted = fit(value, kinds[name])
        except ValueError as error:
            raise OptionError(f"target {text}: {key} = {value!r}: give {error}") from None
        given[name] = tuple(fitted) if isinstance(fitted, list) else fitted
    return Target(**given)


def _parse(text: str) -> dict[str, Any]:
    shipped = shipped_targets()
    path = Path(text)
    try:
        if text in shipped:
            data = resources.files("graphprune.targets").joinpath(f"{text}.toml").read_bytes()
        elif path.exists() or path.suffix == ".toml" or path.name != text:
            data = path.read_bytes()
        else:
            raise OptionError(f"unknown target {text!r}: {hint(text, shipped)} or give a TOML file")
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise OptionError(f"cannot read target {text}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
        raise OptionError(f"target {text} is not a TOML file: {error}") from error


# -- what the fields may hold -----------------------------------------------------------------------------

Check = Callable[[Any, str], object]
"""``check(value, subject)`` raises OptionError, whose sentence begins with ``subject``, for a wrong value."""


def _one_of(names: Sequence[str]) -> Check:
    return _such_that(lambda value: value in names, lambda value: hint(str(value), names))


def _such_that(holds: Callable[[Any], bool], advice: Callable[[Any], str]) -> Check:
    def check(value: Any, subject: str) -> None:
        if not holds(value):
            raise OptionError(f"{subject}: {advice(value)}")

    return check


_CHECKS: Mapping[str, Check] = {
    "structure": _one_of(STRUCTURES),
    "block": parse_block,
    "nm": parse_nm,
    "nm_axis": _one_of(AXES),
    "sparse_operators": _one_of(CONTRACTIONS),
    "multiple_of": _such_that(lambda value: value >= 1, lambda value: "give a number from 1"),
    "lacks": _such_that(lambda value: bool(value.strip()), lambda value: "name an operator, as ReduceMean"),
    "format": _one_of(FORMATS),
    "reads": _one_of(FORMATS),
}
"""Field -> its check; of tuples, for each entry."""

_KINDS: Mapping[str, Any] = {
    "sparse_operators": list[str],
    "lacks": list[str],
    "rewrites": list[str],
    "reads": list[str],
}
"""Fields that TOML writes as lists."""
