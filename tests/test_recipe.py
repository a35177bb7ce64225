"""Recipes: limits, files, and the ones that are shipped."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import tomllib
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.errors import OptionError
from graphprune.recipes import recipe as recipes
from graphprune.recipes.recipe import Recipe, read_recipe, shipped_recipes, write_recipe


class Attention(StrEnum):
    """A choice, as the command line has them."""

    heads = "heads"
    both = "both"


FIELDS = typing.get_type_hints(Recipe)
KNOWN: dict[str, Any] = {
    **FIELDS,
    "sparsity": float | None,
    "structure": str,
    "nm": str | None,
    "allow_inexact": bool,
    "only": list[str] | None,
    "attention": Attention,
    "data": Path | None,
    "resize": str | None,
    "mean": str | None,
    "min_channels": int,
}


def written(folder: Path, text: str, name: str = "r.toml") -> str:
    """A recipe file with ``text``; its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# -- limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batch_size": 0}, "--batch-size 0: give a number from 1"),
        ({"batch_size": 1.5}, "--batch-size 1.5: give a whole number"),
        ({"batch_size": True}, "--batch-size True: give a whole number"),
        ({"batch_size": None}, "--batch-size None: give a whole number"),
        ({"max_steps": 0}, "--max-steps 0: give a number from 1"),
        ({"search_epochs": -1}, "--search-epochs -1: give a number from 0"),
        ({"lr": math.nan}, "--lr nan: give a number from 0"),
        ({"lr": math.inf}, "--lr inf: give a number from 0"),
        ({"lr": "fast"}, "--lr 'fast': give a number"),
        ({"init_temp": 0}, "--init-temp 0: give a number above 0"),
        ({"budget_anneal": 1.5}, "--budget-anneal 1.5: give a share from 0 to 1"),
        ({"momentum": 1.0}, "--momentum 1: give a number from 0 to below 1"),
        ({"optimizer": "admw"}, "--optimizer admw: did you mean 'adamw'?"),
        ({"scheduler": "cosin"}, "--scheduler cosin: did you mean 'cosine'?"),
        ({"temp_unit": "x"}, "--temp-unit x: known are raw, std"),
        ({"loss": "crossentropy"}, "--loss crossentropy: did you mean 'cross-entropy'?"),
        ({"amp": "fp16"}, "--amp fp16: did you mean 'bf16'?"),
        (
            {"final_temp": 20, "init_temp": 10},
            "--final-temp 20 is above --init-temp 10: the temperature falls, so give a lower one",
        ),
        (
            {"budget_anneal": 0.9, "snap": 0.2},
            "--budget-anneal 0.9 and --snap 0.2 overlap: their sum may be 1 at most",
        ),
    ],
)
def test_limits(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        Recipe(**values)
    assert str(caught.value) == sentence


def test_shares_of_the_search_are_compared_with_the_methods_own() -> None:
    recipe = Recipe(budget_anneal=0.9)
    assert recipe.completed({"snap": 0.0}).own("snap") == 0.0  # as gmp has it
    with pytest.raises(OptionError, match=r"^--budget-anneal 0.9 and --snap 0.2 overlap"):
        recipe.completed({})


def test_temperatures_are_compared_with_the_methods_own() -> None:
    recipe = Recipe(init_temp=5e-5)
    assert recipe.completed({"final_temp": 5e-5}).own("init_temp") == 5e-5
    with pytest.raises(OptionError, match=r"^--final-temp 0.0001 is above --init-temp 5e-05"):
        recipe.completed({})


def test_values_are_normalised() -> None:
    recipe = Recipe(search_epochs=3, finetune_epochs=5, pretrain_epochs=0.5, loss="python:a.b:c", seed=10**40)
    assert recipe.total_epochs == 8.5
    assert isinstance(recipe.search_epochs, float)
    assert Recipe(search_epochs=3) == Recipe(search_epochs=3.0)
    assert Recipe(budget_anneal=0.8, snap=0.2).snap == 0.2


def test_every_name_has_its_function() -> None:
    from graphprune import python_functions
    from graphprune.training import losses, optimisers

    assert set(recipes.OPTIMIZERS) == set(optimisers.OPTIMIZERS)
    assert set(recipes.LOSSES) == set(losses.LOSSES)
    assert Recipe(loss=f"{python_functions.PREFIX}package.module:function").lr == 1e-3


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys, graphprune.recipes.recipe as r; r.Recipe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- what is shipped ----------------------------------------------------------------------------------


def test_smart_is_the_default() -> None:
    values = read_recipe("smart", FIELDS)
    assert Recipe(**values) == Recipe()
    machine = {"max_steps", "warmup_steps", "device", "threads", "seed", "checkpoint_minutes"}
    methods_own = {"mask_lr", "init_temp", "final_temp", "budget_anneal", "snap", "rounds"}
    assert set(FIELDS) - set(values) == machine | methods_own


def test_smart_plus() -> None:
    values = read_recipe("smart-plus", FIELDS)
    changed = {
        "optimizer": "muon",
        "lr": 2e-3,
        "momentum": 0.95,
        "warmup_steps": 20,
        "scheduler": "linear",
        "ema": 0.98,
        "augment": "light",
        "search_epochs": 3.0,
        "finetune_epochs": 5.0,
        "mask_lr": 0.2,
        "mask_scheduler": "cosine",
    }
    assert Recipe(**values) == dataclasses.replace(Recipe(), **changed)


# (batch, epochs, #se, warm-up, optimiser, lr, mask lr, momentum, weight decay, schedule, tau_s, tau_e, N:M)
TABLE_5 = {
    "resnet50": (256, 100, 20, 0, "adamw", 1e-4, 1e-4, 0.9, 0.025, "cosine", 10, 1e-4, None),
    "yolov5m": (16, 100, 20, 3, "sgd", 1e-4, 1e-4, 0.937, 5e-4, "lambda", 10, 1e-4, None),
    "bisenetv2": (16, 134.6, 9.42, 0, "sgd", 5e-4, 1e-4, 0.9, 0, "poly", 10, 1e-4, None),
    "vit": (64, 150, 5, 0, "adamw", 1e-5, 1e-5, 0.9, 0.3, "cosine", 1e-4, 1e-5, "2:4"),
    "swin": (128, 200, 20, 20, "adamw", 5e-6, 5e-6, 0.9, 0.05, "cosine", 10, 1e-5, "2:4"),
}


@pytest.mark.parametrize("name", TABLE_5)
def test_table_5(name: str) -> None:
    values = read_recipe(f"table5-{name}", KNOWN)
    nm, structure = values.pop("nm", None), values.pop("structure", None)
    r = Recipe(**values)
    assert (r.optimizer, r.scheduler) == (r.mask_optimizer, r.mask_scheduler)
    assert (r.momentum, r.weight_decay) == (r.mask_momentum, r.mask_weight_decay)
    row = (
        *(r.batch_size, round(r.total_epochs, 9), r.search_epochs, r.warmup_epochs, r.optimizer, r.lr),
        *(r.mask_lr, r.momentum, r.weight_decay, r.scheduler, r.init_temp, r.final_temp, nm),
    )
    assert row == TABLE_5[name]
    assert structure == (nm and "nm")
    assert (r.temp_unit, r.temp_schedule, r.budget_anneal, r.snap, r.ema) == ("raw", "exp", 0, 0, 0)
    assert ("loss" in values) == (name != "yolov5m")


def test_shipped_names() -> None:
    assert shipped_recipes() == sorted(["smart", "smart-plus", *(f"table5-{name}" for name in TABLE_5)])


# -- reading ------------------------------------------------------------------------------------------


def test_reading(tmp_path: Path) -> None:
    text = """
    search-epochs = 2
    mask_lr = 0.2
    sparsity = 1
    only = "layer1.*"
    attention = "both"
    data = "images"
    resize = 32
    mean = [0.5, 0.25, 1]
    allow-inexact = true
    """
    values = read_recipe(written(tmp_path, "\ufeff" + text), KNOWN)
    assert values == {
        "search_epochs": 2.0,
        "mask_lr": 0.2,
        "sparsity": 1.0,
        "only": ["layer1.*"],
        "attention": Attention.both,
        "data": Path("images"),
        "resize": "32",
        "mean": "0.5,0.25,1",
        "allow_inexact": True,
    }
    assert isinstance(values["sparsity"], float)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("batchsize = 8", "unknown key 'batchsize': did you mean 'batch-size'?"),
        ("qwertz = 8", "unknown key 'qwertz': graphprune prune --help lists the flags"),
        ("[train]\nlr = 1", "unknown key 'train': "),
        ("lr.x = 1", "lr = {'x': 1}: give a number"),
        ("lr = true", "lr = True: give a number"),
        ("lr = '1e-3'", "lr = '1e-3': give a number"),
        (f"lr = 1{'0' * 400}", "0: give a number"),
        ("batch-size = 8.0", "batch-size = 8.0: give a whole number"),
        ("allow-inexact = 1", "allow-inexact = 1: give true or false"),
        ("only = [1]", "only = [1]: give a list of texts"),
        ("attention = 'tails'", "attention = 'tails': give one of heads, both"),
        ("optimizer = 1979-05-27", "give a text in quotes"),
        ("mask-lr = 1\nmask_lr = 2", "mask-lr is there twice: keep one"),
        ("lr = fast", "is not a TOML file: Invalid value (at line 1, column 6)"),
        ("x = " + "[" * 20_000, "is not a TOML file: "),
    ],
)
def test_unreadable(tmp_path: Path, text: str, sentence: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(OptionError) as caught:
        read_recipe(path, KNOWN)
    assert str(caught.value).startswith(f"recipe {path}")
    assert sentence in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match="is not a TOML file"):
        read_recipe(str(tmp_path / "binary.toml"), KNOWN)
    with pytest.raises(OptionError, match=r"cannot read recipe nowhere\.toml: No such file or directory"):
        read_recipe("nowhere.toml", KNOWN)
    with pytest.raises(OptionError, match=r"cannot read recipe .*: Is a directory"):
        read_recipe(str(tmp_path), KNOWN)
    with pytest.raises(OptionError, match=r"unknown recipe 'smarter': did you mean 'smart'\? or give a file"):
        read_recipe("smarter", KNOWN)


# -- writing ------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = {
    float: st.floats(allow_nan=False),
    int: st.integers(),
    str: NAMES,
    bool: st.booleans(),
    list[str]: st.lists(NAMES, max_size=3),
    Attention: st.sampled_from(Attention),
    Path: NAMES.map(Path),
}


def drawn(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type annotation."""
    kinds = typing.get_args(kind) if kind not in VALUES else (kind,)
    return st.one_of([VALUES[k] if k in VALUES else st.none() for k in kinds])


@given(st.fixed_dictionaries({}, optional={name: drawn(kind) for name, kind in KNOWN.items()}))
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("recipe") / "used.toml"
    write_recipe(path, values)
    assert read_recipe(str(path), KNOWN) == {name: v for name, v in values.items() if v is not None}


def test_what_is_written(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    values = {**dataclasses.asdict(Recipe()), "structure": "channel", "sparsity": 0.5}
    write_recipe(first, values)
    write_recipe(second, dict(reversed(values.items())))
    assert first.read_text() == second.read_text()
    lines = first.read_text().splitlines()
    assert lines[1:4] == [
        "sparsity = 0.5",
        'structure = "channel"',
        "pretrain-epochs = 0.0  # epochs of plain training before the search",
    ]
    assert not any(line.startswith("max-steps") for line in lines)
    assert tomllib.loads(first.read_text())["batch-size"] == 128


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = Path(written(tmp_path, "lr = 1"))
    with pytest.raises(OptionError, match="exists already"):
        write_recipe(path, {"lr": 2.0})
    with pytest.raises(OptionError, match="not valid text"):
        write_recipe(path, {"data": "caf\udce9"}, force=True)
    assert path.read_text() == "lr = 1"
    write_recipe(path, {"lr": 2.0}, force=True)
    assert read_recipe(str(path), KNOWN) == {"lr": 2.0}
