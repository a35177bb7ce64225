"""Hostile plans: every one is refused in one sentence by verify and apply, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphprune
from tests.conftest import Run, small_network
from tests.hostile.kit import is_one_sentence


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx, small.onnx and its plan."""
    folder = tmp_path_factory.mktemp("pruned")
    onnx.save(small_network(), folder / "model.onnx")
    graphprune.prune(folder / "model.onnx", sparsity=0.5).save(folder / "small.onnx")
    return folder


DEEP = b"[" * 200_000
PLANS: list[tuple[str, bytes]] = [
    ("not a readable plan", b""),
    ("not a readable plan", b"\xff\xfe\x00"),
    ("not a readable plan", b'{"version": 1, "source_sha256": "12'),
    ("nested too deeply", DEEP),
    ("nested too deeply", b'{"fidelity": ' + b'{"a": ' * 100_000),
    ("NaN, which is no number", b'{"version": 1, "fidelity": {"a": NaN}}'),
    ("not a readable plan", b'{"seed": ' + b"9" * 10_000 + b"}"),
    ("no JSON object", b"[1, 2]"),
    ("no JSON object", b"null"),
    ("has version None", b"{}"),
    ("has version 2", b'{"version": 2}'),
    ("no source_sha256", b'{"version": 1}'),
    ("unknown field", b'{"version": 1, "surprise": 1}'),
]


@pytest.mark.parametrize(("words", "content"), PLANS, ids=range(len(PLANS)))
def test_files_that_are_no_plans(words: str, content: bytes, pruned: Path, tmp_path: Path, run: Run) -> None:
    plan = tmp_path / "plan.json"
    plan.write_bytes(content)
    refuses_plan(words, plan, pruned, tmp_path, run)


@pytest.mark.parametrize("place", ["folder", "pipe", "missing"])
def test_plans_that_are_no_files(place: str, pruned: Path, tmp_path: Path, run: Run) -> None:
    plan = tmp_path / "plan.json"
    if place == "folder":
        plan.mkdir()
    elif place == "pipe":
        os.mkfifo(plan)
    refuses_plan("no such plan" if place == "missing" else "no plain file", plan, pruned, tmp_path, run)


def refuses_plan(words: str, plan: Path, pruned: Path, folder: Path, run: Run) -> None:
    """By verify and by apply, which leaves nothing behind."""
    out = folder / "out"
    out.mkdir()
    source = pruned / "model.onnx"
    for command in (
        ("verify", source, pruned / "small.onnx", "--plan", plan),
        ("apply", source, plan, "-o", out / "again.onnx"),
    ):
        code, _, err = run(*command)
        assert code == 2, command[0]
        assert is_one_sentence(err, words), err
    assert not list(out.iterdir())


WRONG: list[Any] = [
    None,
    True,
    -1,
    1e400,
    2**70,
    0.5,
    "text",
    [],
    [[]],
    ["a"],
    {},
    {"a": 1},
    {"a": {"0": ["x"]}},
]


def test_wrong_types_in_every_field(pruned: Path) -> None:
    """Values that no field of its type may have; what is left is refused when it meets the model, or harmless."""
    right = json.loads((pruned / "small.plan.json").read_text())
    refused: list[str] = []
    accepted: list[tuple[str, Any]] = []
    for name in right:
        for value in WRONG:
            try:
                graphprune.Plan.from_dict(right | {name: value})
                accepted.append((name, value))
            except graphprune.PlanError as error:
                refused.append(str(error))
    assert len(refused) > 200
    assert "\n" not in "".join(refused)
    texts = {name for name, value in accepted if value == "text"}
    assert texts == {"method", "weights", "pattern", "source_sha256"}
    maps = {name for name, value in accepted if value == {"a": 1} and isinstance(value, dict)}
    assert maps == {"calibration", "fidelity", "freed", "macs", "params"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"removed": {"conv1.weight": {"0": [0, 99]}}}, "'conv1.weight'"),
        ({"removed": {"conv1.weight": {"0": [-1]}}}, "'removed' is not"),
        ({"removed": {"conv1.weight": {"0": [1, 1]}}}, "'removed' is not"),
        ({"removed": {"conv1.weight": {"0": [1.0]}}}, "'removed' is not"),
        ({"removed": {"conv1.weight": {"0": [[1], [1, 2]]}}}, "'removed' is not"),
        ({"removed": {"conv1.weight": {"-1": [1]}}}, "'removed' is not"),
        ({"removed": {"conv1.weight": {"9": [1]}}}, "axis 9"),
        ({"removed": {"nothing": {"0": [1]}}}, "'nothing'"),
        ({"removed": {"conv1.weight": {"0": [[1], [2], [3]]}}}, "'conv[12].weight'"),
        ({"contracted": {"conv2.weight": [7]}}, "'conv2.weight'|'contracted'"),
        ({"gates": {"nothing": {"1": [0]}}}, "'nothing'|'gates'"),
        ({"kept_only": {"nothing": {"1": [0]}}}, "'nothing'|'kept_only'"),
        ({"blocks": {"nothing": {"shape": [1, 1], "kept": [0]}}}, "'nothing'|'blocks'"),
        ({"blocks": {"fc.weight": {"shape": [1], "kept": [0]}}}, "'fc.weight'|'blocks'"),
        ({"patterns": {"fc.weight": {"keep": 3, "of": 2, "axis": 0}}}, "'fc.weight'|'patterns'"),
        ({"branches": [{"node": "a", "value": "b", "removed": "c"}]}, "'b'|'branches'"),
        ({"source_sha256": "0" * 64}, "was not made from"),
        ({"source_sha256": "x"}, "was not made from"),
        ({"source_sha256": 1}, "'source_sha256' is not"),
    ],
    ids=str,
)
def test_plans_that_contradict_the_model(
    fields: dict[str, Any], words: str, pruned: Path, tmp_path: Path, run: Run
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(json.loads((pruned / "small.plan.json").read_text()) | fields))
    refuses_plan(words, plan, pruned, tmp_path, run)


def test_random_changes_of_a_plan(pruned: Path, tmp_path: Path) -> None:
    """Whatever is put in the place of a value: refused with a sentence, or the model differs, or it does not matter."""
    rng = np.random.default_rng(0)
    text = (pruned / "small.plan.json").read_text()
    first, second = graphprune.load(pruned / "model.onnx"), graphprune.load(pruned / "small.onnx")
    refused = []
    for _ in range(25):
        data = json.loads(text)
        _change(data, rng)
        try:
            graphprune.verify(first, second, graphprune.Plan.from_dict(data))
        except graphprune.PlanError as error:
            refused.append(str(error))
    assert len(refused) > 5
    assert "\n" not in "".join(refused)


def _change(data: Any, rng: np.random.Generator) -> None:
    """Another value somewhere inside."""
    while True:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        key = keys[rng.integers(len(keys))]
        inner = data[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.9:
            data = inner
            continue
        values = [*WRONG, 3, [0], [5, 7], {"conv1.weight": {"0": [2]}}]
        data[key] = values[rng.integers(len(values))]
        return
