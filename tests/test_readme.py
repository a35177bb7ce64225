"""README says what is true: its table is generated, its commands parse, its Python runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import COMMANDS, Run, small_network
from onnx import TensorProto, helper, numpy_helper
from readme_files import write_inputs, write_models

import graphprune
from graphprune.catalog import method_table
from graphprune.plan import Plan
from graphprune.rules.table import operator_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND_LINES = list(dict.fromkeys(re.findall(r"^\$ graphprune (.*)$", README, re.MULTILINE)))
TIMED = [line for line in COMMAND_LINES if "--latency" in line or "--multiples" in line]
"""They measure this machine: seconds to minutes, and they may find it too busy."""
TARGET = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[0]
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_operator_table_is_the_generated_one() -> None:
    shown = README.split("<!-- operators: begin -->\n")[1].split("<!-- operators: end -->")[0]
    assert shown == operator_table(), "run python -m graphprune.rules.table and paste what it prints"


def test_method_table_is_the_generated_one() -> None:
    shown = README.split("<!-- methods: begin -->\n")[1].split("<!-- methods: end -->")[0]
    assert shown == method_table(), "run python -m graphprune.catalog and paste what it prints"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file that README names."""
    folder = tmp_path_factory.mktemp("readme")
    write_inputs(folder, TARGET)
    return folder


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[pytest.mark.slow] * (line in TIMED)) for line in COMMAND_LINES]
)
def test_command_lines_run(
    line: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(inputs, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = shlex.split(line.split(" | ")[0])
    write_models(words)
    code, out, err = run(*words)
    assert code == 0, err
    assert out
    assert "Traceback" not in err


def test_what_is_not_run_here_is_counted() -> None:
    """Two commands that measure time are left to make test-slow; tests/test_training.py trains in two processes."""
    assert len(TIMED) == 2
    others = re.findall(r"^    (torchrun .*)$", README, re.MULTILINE)
    assert len(others) == 1
    assert shlex.split(others[0])[:6] == [
        "torchrun",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "graphprune",
    ]


def test_readme_shows_every_command() -> None:
    assert {line.split()[0] for line in COMMAND_LINES} == set(COMMANDS)


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.criteria import registry as criteria
    from graphprune.rewriting import registry as rewrites
    from graphprune.rules import registry

    for table in (registry, rewrites):
        monkeypatch.setattr(table, "_RULES", dict(table._RULES))  # examples register rules
    monkeypatch.setattr(criteria, "_CRITERIA", dict(criteria._CRITERIA))
    monkeypatch.chdir(tmp_path)
    onnx.save(small_network(), "model.onnx")
    assert len(PYTHON_BLOCKS) == 11
    for block in PYTHON_BLOCKS:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert Path("small.onnx").exists()
    assert graphprune.verify("model.onnx", "trained.onnx").holds
    assert Path("from_torch.pt2").exists()
    assert registry.find_rule("example.com::Scale2") is not None


def grouped_network() -> onnx.ModelProto:
    """conv (16) -> grouped conv (4 groups) -> conv: every group loses its own positions."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 3, 1, 1), "b1": (16,), "w2": (32, 4, 3, 3), "b2": (32,), "w3": (4, 32, 1, 1)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "conv1"),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], "conv2", group=4),
        helper.make_node("Sigmoid", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["y"], "conv3"),
    ]
    graph = helper.make_graph(
        nodes,
        "grouped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    """The only output, in onnxruntime."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initializers by name."""
    return {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}


@pytest.mark.parametrize("build", [small_network, grouped_network])
def test_numpy_and_the_plan_rebuild_the_masked_original(build: Any) -> None:
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(next(block for block in PYTHON_BLOCKS if "def masked_weights" in block), namespace)
    original = build()
    result = graphprune.prune(original, sparsity=0.5, method="random", seed=1, multiple_of=1)
    pruned = result.model.to_onnx()
    plan = json.loads(result.plan.to_json())
    weights = namespace["masked_weights"](arrays(original), arrays(pruned), plan)
    masked = onnx.ModelProto.FromString(original.SerializeToString())
    for weight in masked.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(weights[weight.name], weight.name))
    feed = {"x": np.random.default_rng(2).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    expected, found, whole = run(masked, feed), run(pruned, feed), run(original, feed)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(found - whole).max() > 1e-3 * np.abs(whole).max()


def test_readme_explains_every_field() -> None:
    plan = set(Plan(source_sha256="").to_dict())
    report = graphprune.analyze(small_network(), structure="block", block="2x2x1x1").to_dict()
    measured = graphprune.analyze(small_network(), sensitivity=True, samples=2).to_dict()["sensitivity"]
    sensitivity = {"sensitivity"} | set(measured) | set(measured["groups"][0])
    group = set(report["groups"][0]) | set(report["nodes"][0])
    fidelity = set(graphprune.prune(small_network(), sparsity=0.5).plan.fidelity) | {"module"}
    pattern = set(report["patterns"]) | set(report["patterns"]["weights"][0])
    missing = {
        f for f in plan | set(report) | group | fidelity | pattern | sensitivity if f"`{f}`" not in README
    }
    assert missing == set()


def test_changelog_covers_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text or f"## [{graphprune.__version__}]" in text
