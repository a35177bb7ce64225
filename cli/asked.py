"""What ``prune`` was asked for: flags over the recipe over defaults."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from graphprune.recipes.recipe import Recipe

_NOT_IN_RECIPES = ("ctx", "model", "out", "json", "html", "force", "resume", "recipe", "no_cache")
"""They belong to one call, not to a way of pruning."""


def asked(ctx: typer.Context, command: Callable[..., Any]) -> dict[str, Any]:
    """Every parameter of ``command``: from the command line, else the recipe, else the target, else its default.

    Raises OptionError for a recipe or a target that cannot be read.
    """
    values = dict(ctx.params)
    told = {key for key in values if given(ctx, key)}
    if values.get("recipe") is not None:
        from graphprune.recipes.recipe import read_recipe

        kinds = {k: v for k, v in typing.get_type_hints(command).items() if k not in _NOT_IN_RECIPES}
        for key, value in read_recipe(values["recipe"], kinds).items():
            if key not in told:
                values[key] = value
                told.add(key)
    if values.get("target") is not None:
        from graphprune.targets.target import defaults, find_target

        for key, value in defaults(find_target(values["target"])).items():
            if key not in told:
                values[key] = str(value)
    return values


def given(ctx: typer.Context, name: str) -> bool:
    """Whether a parameter is on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def training_recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe that ``values`` describe. Raises OptionError for a value out of range."""
    from graphprune.recipes.recipe import Recipe

    return Recipe(**{f.name: values[f.name] for f in fields(Recipe) if values.get(f.name) is not None})


def full_recipe(values: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Everything that a recipe file of this call holds."""
    kept = {k: v for k, v in values.items() if k not in _NOT_IN_RECIPES and v not in (None, [], ())}
    return {**kept, **{k: v for k, v in vars(recipe).items() if v is not None}}
