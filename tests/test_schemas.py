"""Everything that is written as JSON follows its published schema, which allows nothing else."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from conftest import Run, small_network
from test_readme import grouped_network

import graphprune
from graphprune.errors import OptionError
from graphprune.schemas import schema_names

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(graphprune.schema(name))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """model.onnx (small), grouped.onnx, resnet.onnx, images.npz and labelled.npz, in the current folder."""
    monkeypatch.chdir(tmp_path)
    onnx.save(small_network(), "model.onnx")
    onnx.save(small_network(1), "other.onnx")
    onnx.save(grouped_network(), "grouped.onnx")
    (tmp_path / "resnet.onnx").write_bytes(RESNET.read_bytes())
    x = np.random.default_rng(0).standard_normal((12, 3, 8, 8)).astype(np.float32)
    np.savez("images.npz", x=x)
    np.savez("labelled.npz", x=x, labels=np.arange(12) % 5)
    return tmp_path


COMMANDS = {
    "analyze": [
        "analyze model.onnx",
        "analyze grouped.onnx",
        "analyze model.onnx --structure block --block 2x2x1x1",
        "analyze model.onnx --structure nm",
        "analyze resnet.onnx --structure branch",
        "analyze grouped.onnx --sensitivity --samples 2",
        "analyze model.onnx --sensitivity --eval-data labelled.npz",
    ],
    "plan": [
        "prune model.onnx --sparsity 0.3",
        "prune grouped.onnx --sparsity 0.3 --multiple-of 1",
        "prune model.onnx --structure block --block 2x2x1x1 --sparsity 0.5",
        "prune model.onnx --structure nm --nm 2:4",
        "prune resnet.onnx --structure branch --sparsity 0.2 --input-shape input:1,3,32,32",
        "prune model.onnx --sparsity 0.3 --data images.npz --eval-data labelled.npz",
        "prune model.onnx --latency 0.9 --threads 1 --no-cache --multiple-of 1",
        "prune model.onnx --sparsity 0.3 --method smart --data images.npz --max-steps 4 --threads 1",
    ],
    "check": ["check resnet.onnx --target npu-16x8", "check model.onnx --target cpu-ort"],
    "rewrite": ["rewrite resnet.onnx --rule fold-batchnorm", "rewrite model.onnx --target npu-16x8"],
    "methods": ["methods"],
    "bench": ["bench model.onnx other.onnx --runs 3", "bench model.onnx --runs 3 --no-profile"],
    "compare": [
        "compare model.onnx other.onnx --eval-data labelled.npz",
        "compare model.onnx model.onnx --no-latency --samples 2",
    ],
}
LINES = [(name, line) for name, lines in COMMANDS.items() for line in lines]


@pytest.mark.parametrize(("name", "line"), LINES, ids=[line for _, line in LINES])
def test_what_a_command_writes_follows_its_schema(name: str, line: str, folder: Path, run: Run) -> None:
    code, out, err = run(*line.split(), "--json", "-")
    assert code in (0, 1), err
    written = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert list(validator(name).iter_errors(written)) == []
    more = [*written, 1] if isinstance(written, list) else {**written, "and more": 1}
    assert not validator(name).is_valid(more)


def test_verify_and_apply_follow_theirs(folder: Path, run: Run) -> None:
    assert run("prune", "model.onnx", "--sparsity", "0.5", "-o", "small.onnx")[0] == 0
    plan = json.loads((folder / "small.plan.json").read_text())
    assert list(validator("plan").iter_errors(plan)) == []
    code, out, _ = run("verify", "model.onnx", "small.onnx", "--json", "-")
    assert code == 0
    assert list(validator("verify").iter_errors(json.loads(out))) == []
    code, out, _ = run("apply", "model.onnx", "small.plan.json", "-o", "again.onnx", "--json", "-")
    assert code == 0
    assert json.loads(out) == plan
    damaged = onnx.load("small.onnx")
    damaged.graph.initializer[0].raw_data = np.full(
        len(damaged.graph.initializer[0].raw_data) // 4, np.nan, np.float32
    ).tobytes()
    onnx.save(damaged, "small.onnx")
    code, out, _ = run("verify", "model.onnx", "small.onnx", "--json", "-")
    assert code == 1
    failed = json.loads(out)
    assert list(validator("verify").iter_errors(failed)) == []
    assert failed["max_rel_diff"] is None


def test_the_index_of_a_sidecar_follows_its_schema(folder: Path) -> None:
    for words in ({"structure": "block", "block": "2x2x1x1", "sparsity": 0.5}, {"structure": "nm"}):
        graphprune.prune("model.onnx", **words).save("sparse.onnx", force=True)
        index = json.loads(str(np.load("sparse.blocks.npz")["index"]))
        assert list(validator("blocks").iter_errors(index)) == []


@pytest.mark.parametrize("name", schema_names())
def test_schemas_are_valid_and_closed(name: str) -> None:
    found = graphprune.schema(name)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def walk(part: Any) -> None:
        if isinstance(part, list):
            for inner in part:
                walk(inner)
        elif isinstance(part, dict):
            assert part.get("type") != "object" or "additionalProperties" in part
            assert "properties" not in part or part["additionalProperties"] is False
            for inner in part.values():
                walk(inner)

    walk({k: v for k, v in found.items() if k != "title"})


def test_every_command_that_writes_json_has_a_schema() -> None:
    from typer.main import get_command

    from graphprune_cli.app import app

    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    writing = {n for n, c in commands.items() if any("--json" in p.opts for p in c.params)}
    shared = {"prune": "plan", "apply": "plan"}
    assert {shared.get(n, n) for n in writing} | {"blocks"} == set(schema_names())


def test_an_unknown_schema_is_refused() -> None:
    with pytest.raises(OptionError, match="did you mean 'analyze'"):
        graphprune.schema("analyse")
