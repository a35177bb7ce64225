"""A plan carried out again gives the same file, byte for byte; and so does the same command on another day."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphprune
from tests.conftest import Run, small_network
from tests.random_graphs import build, random_recipe
from tests.real_models import shared_models

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
HEADS = "NVIDIA__attention_head"


def again(original: Any, folder: Path, **words: Any) -> tuple[Path, Path]:
    """``original`` pruned, and pruned once more from the plan alone."""
    first, second = folder / "first.onnx", folder / "second.onnx"
    graphprune.prune(original, **words).save(first)
    graphprune.apply(original, folder / "first.plan.json").save(second)
    return first, second


def same_files(first: Path, second: Path) -> None:
    """Model, weights in a file of their own, plan: all the same bytes."""
    assert first.read_bytes() == second.read_bytes()
    plans = [path.with_suffix(".plan.json").read_bytes() for path in (first, second)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    "words",
    [
        {"sparsity": 0.5},
        {"macs": 0.4, "method": "lamp", "seed": 3, "multiple_of": 4},
        {"sparsity": 0.3, "method": "wanda", "samples": 8},
        {"sparsity": 0.5, "structure": "block", "block": "16x8x1x1"},
        {"sparsity": 0.9, "structure": "block", "block": "8x4x3x3", "exclude": ["stem*"]},
        {"structure": "nm", "nm": "2:4"},
        {"structure": "nm", "nm": "1:4", "nm_axis": "output", "method": "random"},
        {"sparsity": 0.3, "structure": "branch"},
    ],
    ids=lambda words: "-".join(str(v) for v in words.values()),
)
def test_the_same_file(words: dict[str, Any], tmp_path: Path) -> None:
    same_files(*again(RESNET, tmp_path, **words))


CASES = [
    (path, kind)
    for path in shared_models()
    for kind in ("heads", "width", "both")
    if kind == "heads" or path.stem == HEADS
]
BIG_IMAGES = ("fns_candy", "yolov8n-seg", "xfeat", "PAN_mobilenet", "PP-OCRv3", "super_resolution", "PP-OCR")


@pytest.mark.parametrize(("path", "attention"), CASES, ids=lambda x: x.stem if isinstance(x, Path) else x)
def test_files_of_others(path: Path, attention: str, tmp_path: Path) -> None:
    if path.stat().st_size > 8e6 or any(word in path.stem for word in BIG_IMAGES):
        pytest.skip("two proofs of this file take seconds; the smaller ones tell the same")
    try:
        first, second = again(path, tmp_path, sparsity=0.25, attention=attention)
    except graphprune.BudgetError:
        pytest.skip("nothing to prune in this file")
    same_files(first, second)


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed: int, tmp_path: Path) -> None:
    model = build(random_recipe(seed))
    try:
        first, second = again(model, tmp_path, sparsity=0.3, multiple_of=1, attention="both")
    except graphprune.BudgetError:
        pytest.skip("nothing to prune in this network")
    same_files(first, second)


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    onnx.save(small_network(), source, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    first, second = again(source, tmp_path, sparsity=0.5)
    assert Path(f"{first}.data").read_bytes() == Path(f"{second}.data").read_bytes()


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """The plan of the small network at half its channels, changed."""
    onnx.save(small_network(), tmp_path / "m.onnx")
    graphprune.prune(tmp_path / "m.onnx", sparsity=0.5).save(tmp_path / "first.onnx")
    path = tmp_path / "first.plan.json"

    def changed(**fields: Any) -> Path:
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, **fields}))
        return path

    return changed


def test_another_model(plan: Callable[..., Path], tmp_path: Path) -> None:
    onnx.save(small_network(1), tmp_path / "other.onnx")
    with pytest.raises(graphprune.PlanError, match=r"not made from .*other\.onnx"):
        graphprune.apply(tmp_path / "other.onnx", plan())


def test_weights_that_only_the_pruned_file_has(plan: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(graphprune.PlanError, match="trained or refitted"):
        graphprune.apply(tmp_path / "m.onnx", plan(weights="trained"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"removed": {"conv1.weight": {"0": [0, 1]}}}, "'removed' do not follow"),  # not its consumers
        ({"removed": {"conv1.weight": {"0": [0, 99]}}}, "positions that 'conv1.weight' does not have"),
        ({"removed": {"conv1.weight": {"0": [-1]}}}, "'removed' is not lists of positions"),
        ({"removed": {"fc.weight": {"0": [1]}}}, "cannot go"),  # an output of the model
        ({"removed": {"nothing": {"0": [1]}}}, "'nothing' along axis 0"),
        ({"removed": {"conv1.weight": {"2": [1]}}}, "cannot go"),
        ({"renamed": {"a": "b"}}, "'renamed' do not follow"),
    ],
    ids=lambda x: x[:24] if isinstance(x, str) else None,
)
def test_changed_plans(
    fields: dict, sentence: str, plan: Callable[..., Path], tmp_path: Path, run: Run
) -> None:
    code, out, err = run("apply", tmp_path / "m.onnx", plan(**fields), "-o", tmp_path / "again.onnx")
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not (tmp_path / "again.onnx").exists()


def test_a_pattern_without_its_sidecar(tmp_path: Path) -> None:
    graphprune.prune(RESNET, structure="nm").save(tmp_path / "first.onnx")
    (tmp_path / "first.blocks.npz").unlink()
    with pytest.raises(graphprune.PlanError, match=r"blocks\.npz"):
        graphprune.apply(RESNET, tmp_path / "first.plan.json")


def test_command(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "m.onnx"
    onnx.save(small_network(), source)
    assert run("prune", source, "--sparsity", 0.5)[0] == 0
    code, out, _ = run("apply", source, tmp_path / "m.pruned.plan.json", "-o", tmp_path / "again.onnx")
    assert code == 0
    assert "holds" in out
    same_files(tmp_path / "m.pruned.onnx", tmp_path / "again.onnx")
    code, _, err = run("apply", source, tmp_path / "m.pruned.plan.json", "-o", tmp_path / "again.onnx")
    assert code == 2
    assert "--force" in err


SAME_COMMANDS = """
import hashlib, sys, tempfile, pathlib
import numpy as np
import graphprune
from tests.conftest import small_network
folder = pathlib.Path(tempfile.mkdtemp())
data = [{"x": np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)}]
runs = [
    {"sparsity": 0.5}, {"source": small_network(), "sparsity": 0.3, "data": data}, {"structure": "nm"},
    {"structure": "block", "sparsity": 0.6}, {"structure": "branch", "sparsity": 0.2},
]
for number, words in enumerate(runs):
    path = folder / f"{number}.onnx"
    graphprune.prune(**{"source": sys.argv[1], **words}).save(path)
    for file in sorted(folder.glob(f"{number}.*")):
        print(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
"""


def test_the_same_command_in_another_process() -> None:
    """Python's order of sets differs from process to process; files must not."""
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", SAME_COMMANDS, str(RESNET)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, cwd=RESNET.parents[1]
        )
        outputs.append(done.stdout.splitlines())
    first, second = outputs
    assert len(first) >= 2 * 5
    assert first == second


def test_masks_of_groups_are_those_of_the_file(tmp_path: Path) -> None:
    first, second = again(RESNET, tmp_path, structure="nm", nm="2:4")
    before, after = (graphprune.load_blocks(path.with_suffix(".blocks.npz")) for path in (first, second))
    assert before
    for name, packed in before.items():
        assert np.array_equal(packed.dense(), after[name].dense())
