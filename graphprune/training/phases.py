"""Epochs -> steps: where each phase of a training begins and ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphprune.errors import OptionError
from graphprune.recipes.recipe import Recipe

PRETRAIN, SEARCH, FINETUNE = "pretrain", "search", "fine-tune"


@dataclass(frozen=True)
class Phases:
    """Steps of each phase; ``warmup`` steps are the first of all of them together."""

    pretrain: int
    search: int
    finetune: int
    warmup: int
    epoch: int | None
    """Steps in one epoch, where the data's length is known."""

    @property
    def total(self) -> int:
        """Steps altogether."""
        return self.pretrain + self.search + self.finetune

    @property
    def search_end(self) -> int:
        """The first step under hard masks."""
        return self.pretrain + self.search

    def at(self, step: int) -> str:
        """The phase of ``step`` (from 0)."""
        if step < self.pretrain:
            return PRETRAIN
        return SEARCH if step < self.search_end else FINETUNE


def phases_of(recipe: Recipe, epoch: int | None, *, searches: bool = True) -> Phases:
    """``epoch``: steps in one epoch, None where the data has no known length (then max_steps counts).

    ``searches``: whether the method trains masks; otherwise fine-tuning follows at once. With ``max_steps``
    below what the epochs ask for, every phase shrinks in proportion. Raises OptionError.
    """
    if not searches:
        recipe = replace(recipe, search_epochs=0.0)
        if recipe.total_epochs == 0:
            return Phases(0, 0, 0, 0, epoch)
    elif recipe.search_epochs <= 0:
        raise OptionError(f"--search-epochs {recipe.search_epochs:g}: a trained method needs a search")
    if epoch is None and recipe.max_steps is None:
        raise OptionError("the data has no known length: give --max-steps")
    total = recipe.total_epochs
    wanted = recipe.max_steps if epoch is None else max(2, round(total * epoch))
    assert wanted is not None
    if recipe.max_steps is not None:
        wanted = min(wanted, recipe.max_steps)
    pretrain = round(wanted * recipe.pretrain_epochs / total)
    most = wanted - pretrain - 1 if searches else wanted - pretrain
    finetune = min(round(wanted * recipe.finetune_epochs / total), most)
    warmup = recipe.warmup_steps
    if warmup is None:
        warmup = round(wanted * min(recipe.warmup_epochs / total, 1.0))
    return Phases(pretrain, wanted - pretrain - finetune, finetune, warmup, epoch)
