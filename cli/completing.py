"""What a shell offers for the values of options, in the order of the engine's own tables."""

from __future__ import annotations

from collections.abc import Iterable


def methods(incomplete: str) -> list[str]:
    """Of --method."""
    from graphprune.catalog import all_methods

    return _begin((m.name for m in all_methods()), incomplete)


def structures(incomplete: str) -> list[str]:
    """Of --structure."""
    from graphprune.notation import STRUCTURES

    return _begin(STRUCTURES, incomplete)


def axes(incomplete: str) -> list[str]:
    """Of --nm-axis."""
    from graphprune.notation import AXES

    return _begin(AXES, incomplete)


def formats(incomplete: str) -> list[str]:
    """Of --format."""
    from graphprune.formats import all_formats

    return _begin(all_formats(), incomplete)


def targets(incomplete: str) -> list[str]:
    """Of --target: the shipped ones."""
    from graphprune.targets.target import shipped_targets

    return _begin(shipped_targets(), incomplete)


def recipes(incomplete: str) -> list[str]:
    """Of --recipe: the shipped ones."""
    from graphprune.recipes.recipe import shipped_recipes

    return _begin(shipped_recipes(), incomplete)


def rules(incomplete: str) -> list[str]:
    """Of --rule."""
    from graphprune.rewriting import all_rewrite_rules

    return _begin(all_rewrite_rules(), incomplete)


def _begin(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
