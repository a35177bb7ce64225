"""``graphprune rewrite`` as a user meets it: exit codes, what is written, what is said."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.conftest import Run, small_network


@pytest.fixture
def target_file(tmp_path: Path) -> Path:
    """A chip without global pools and HardSwish."""
    path = tmp_path / "chip.toml"
    path.write_text('description = "a test"\nlacks = ["GlobalAveragePool", "HardSwish"]\n')
    return path


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_everything_lacking_is_replaced(run: Run, model_file: Path, target_file: Path) -> None:
    code, out, err = run("rewrite", model_file, "--target", target_file)
    assert code == 0, err
    written = model_file.with_suffix(".rewritten.onnx")
    assert ops(written) == ["Conv", "Relu", "Conv", "Relu", "AveragePool", "AveragePool", "Flatten", "Gemm"]
    assert "global-pool" in out
    assert "holds: the rewritten model equals the original" in out
    code, _, err = run("prune", written, "--sparsity", 0.3, "-o", model_file.parent / "small.onnx")
    assert code == 0, err


def test_something_is_left(run: Run, tmp_path: Path) -> None:
    """The rest is written, and the exit code tells."""
    model = small_network()
    axes = model.graph.input[0].type.tensor_type.shape.dim
    axes[2].dim_param, axes[3].dim_param = "height", "width"
    onnx.save(model, tmp_path / "dynamic.onnx")
    target = tmp_path / "chip.toml"
    target.write_text('lacks = ["GlobalAveragePool"]\n')
    out_file = tmp_path / "out.onnx"
    code, out, err = run("rewrite", tmp_path / "dynamic.onnx", "--target", target, "-o", out_file)
    assert code == 1
    assert "GlobalAveragePool" in err
    assert "--input-shape" in out
    assert out_file.exists()
    shape = ("--input-shape", "x:1,3,16,24", "--force")
    code, _, err = run("rewrite", tmp_path / "dynamic.onnx", "--target", target, "-o", out_file, *shape)
    assert code == 0, err
    dims = onnx.load(out_file).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, 16, 24]


def test_json(run: Run, model_file: Path, target_file: Path) -> None:
    code, out, err = run("rewrite", model_file, "--target", target_file, "--json", "-")
    assert code == 0, err
    report = json.loads(out)
    assert report["applied"] == {"global-pool": 1}
    assert report["left"] == []
    assert report["fidelity"]["holds"]


def test_rules_by_name_without_a_target(run: Run, tmp_path: Path) -> None:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 5])
    graph = helper.make_graph(
        [helper.make_node("HardSwish", ["x"], ["y"])],
        "g",
        [given],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)]), tmp_path / "m.onnx")
    code, _, err = run("rewrite", tmp_path / "m.onnx", "--rule", "hard-swish", "-o", tmp_path / "o.onnx")
    assert code == 0, err
    assert ops(tmp_path / "o.onnx") == ["HardSigmoid", "Mul"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "--target"),
        (("--target", "npu-16x9"), "npu-16x8"),
        (("--rule", "gleu"), "gelu"),
        (("--target", "npu-16x8", "--input-shape", "z:1,3,8,8"), "names 'z'"),
        (("--target", "npu-16x8", "-o", "no/such/folder.onnx"), "not a folder"),
        (("--target", "npu-16x8", "-o", "{model}", "--force"), "the model itself"),
        (("--target", "npu-16x8", "-o", "{folder}"), "is a folder"),
    ],
)
def test_unusable_arguments(run: Run, model_file: Path, arguments: tuple[str, ...], sentence: str) -> None:
    filled = [a.format(model=model_file, folder=model_file.parent) for a in arguments]
    before = sorted(model_file.parent.iterdir())
    code, _, err = run("rewrite", model_file, *filled)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(model_file.parent.iterdir()) == before


def test_an_existing_file_is_kept(run: Run, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_text("mine")
    code, _, err = run("rewrite", model_file, "--target", "npu-16x8", "-o", out)
    assert code == 2
    assert "--force" in err
    assert out.read_text() == "mine"


def test_a_failed_proof_writes_nothing(run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.rewriting import registry, rewrite_rule

    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))
    rewrite_rule("wrong", ["Relu"])(lambda node, context: [context.op("Sigmoid", node.inputs[0])])
    before = sorted(model_file.parent.iterdir())
    code, _, err = run("rewrite", model_file, "--rule", "wrong")
    assert code == 1
    assert "nothing was written" in err
    assert sorted(model_file.parent.iterdir()) == before
