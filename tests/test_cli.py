"""The command line's contract: exit codes, streams, files, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import COMMANDS, Run, small_network
from typer.testing import CliRunner

import graphprune.api
from graphprune.__main__ import command_line

ROOT = Path(__file__).resolve().parents[1]
MAIN = command_line()  # from here on graphprune_cli can be imported


def process(*arguments: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python -m graphprune ARGUMENTS`` (or ``code``) in a process of its own."""
    start = ["-c", code] if code is not None else ["-m", "graphprune"]
    return subprocess.run(
        [sys.executable, *start, *(str(a) for a in arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )


def listing(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, to compare before and after."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing on stdout, one sentence on stderr that holds ``words``."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("graphprune: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err


# -- help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_explains_every_option(command: str) -> None:
    from graphprune_cli.app import app

    result = CliRunner().invoke(app, [command, "--help"], terminal_width=100)
    assert result.exit_code == 0
    subject = {"methods": "", "report": " small.plan.json"}.get(command, " model.onnx")
    assert f"graphprune {command}{subject}" in result.output.split("Examples:")[1]


def test_commands_and_options_have_help_texts() -> None:
    from typer.main import get_command

    from graphprune_cli.app import app

    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    assert sorted(commands) == sorted(COMMANDS)
    meanings: dict[str, set[str]] = {}
    for command in commands.values():
        assert command.help
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, parameter.name
            for flag in parameter.opts:
                if flag.startswith("-"):
                    meanings.setdefault(flag, set()).add(parameter.help)
    assert all(len(texts) == 1 for texts in meanings.values()), "a flag means two things"


def test_enumerated_options_know_what_the_engine_knows() -> None:
    from graphprune.allocation import ALLOCATIONS, WITH_INPUTS
    from graphprune.analysis import ATTENTION
    from graphprune_cli.options import Allocation, Attention

    assert [a.value for a in Attention] == list(ATTENTION)
    assert [a.value for a in Allocation] == [*ALLOCATIONS, *WITH_INPUTS]


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"graphprune {graphprune.__version__}\n", "")


def test_help_starts_fast() -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import importlib.util as u\n"
    program += (
        f"spec = u.spec_from_file_location('graphprune_cli', {str(ROOT / 'cli' / '__init__.py')!r},"
        f" submodule_search_locations=[{str(ROOT / 'cli')!r}])\n"
        "sys.modules['graphprune_cli'] = u.module_from_spec(spec)\n"
        "from graphprune_cli.app import main\n"
        "main(['--help'])\n"
        "heavy = {'numpy', 'onnx', 'scipy', 'torch', 'onnxruntime', 'graphprune'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    start = time.perf_counter()
    result = process(code=program)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start < 2  # 0.2 s on an idle machine


# -- analyze ------------------------------------------------------------------------------------------


def test_analyze_tells_people_what_can_be_pruned(run: Run, model_file: Path) -> None:
    code, out, err = run("analyze", model_file, "--nodes")
    assert code == 0
    for word in ("conv1", "conv2", "Prunable groups", "the model's output has these channels", "Gemm"):
        assert word in out
    assert "analysed as [1, 3, 8, 8]" in err


def test_analyze_json_alone_on_stdout_is_the_api_answer(run: Run, model_file: Path) -> None:
    code, out, err = run("analyze", model_file, "--json", "-")
    assert code == 0
    report = json.loads(out)
    expected = graphprune.analyze(model_file).to_dict()
    assert report == json.loads(json.dumps(expected))
    assert err.startswith("note: ")
    group = next(g for g in report["groups"] if g["name"] == "conv1")
    assert group["channels"] == 16
    assert {"tensor": "conv2.weight", "axis": 1, "size": 16} in group["members"]


def test_analyze_json_file_leaves_the_table_on_stdout(run: Run, model_file: Path) -> None:
    target = model_file.with_name("report.json")
    code, out, _ = run("analyze", model_file, "--json", target)
    assert code == 0
    assert "Prunable groups" in out
    assert json.loads(target.read_text())["params"] == graphprune.analyze(model_file).cost.total_params


def test_analyze_says_why_nothing_can_be_pruned(run: Run, tmp_path: Path) -> None:
    from onnx import helper

    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 4])],
        [helper.make_tensor_value_info("y", 1, [1, 4])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "relu.onnx")
    code, out, _ = run("analyze", tmp_path / "relu.onnx")
    assert code == 0
    assert "nothing in this model can be pruned" in out


def test_analyze_names_the_unknown_operator(run: Run, tmp_path: Path) -> None:
    onnx.save(small_network(head="Mystery"), tmp_path / "m.onnx")
    code, out, _ = run("analyze", tmp_path / "m.onnx", "--json", "-")
    assert code == 0
    reasons = [g["reason"] for g in json.loads(out)["groups"]]
    assert any("no rule for this operator" in r and "custom" in r for r in reasons)


def test_analyze_imports_neither_torch_nor_onnxruntime(model_file: Path) -> None:
    program = (
        "import sys\n"
        "from graphprune.__main__ import command_line\n"
        "command_line()(['analyze', sys.argv[1]])\n"
        "heavy = {'torch', 'onnxruntime', 'networkx'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    result = process(model_file, code=program)
    assert result.returncode == 0, result.stderr


# -- prune --------------------------------------------------------------------------------------------


def test_prune_writes_model_and_plan_beside_the_model(run: Run, model_file: Path) -> None:
    code, out, _ = run("prune", model_file, "--structure", "channel", "--sparsity", "0.5")
    assert code == 0
    pruned = onnx.load(model_file.with_name("model.pruned.onnx"))
    onnx.checker.check_model(pruned, full_check=True)
    plan = json.loads(model_file.with_name("model.pruned.plan.json").read_text())
    assert plan["budget"] == {"kind": "sparsity", "requested": 0.5, "achieved": 0.5}
    assert plan["fidelity"]["exact"] is True
    for word in ("holds", "parameters", "MACs", "model.pruned.onnx", "0.5000 achieved"):
        assert word in out
    assert sorted(p.name for p in model_file.parent.iterdir()) == [
        "model.onnx",
        "model.pruned.onnx",
        "model.pruned.plan.json",
    ]


@pytest.mark.parametrize(("kind", "share"), [("sparsity", 0.3), ("params", 0.4), ("macs", 0.25)])
def test_json_on_stdout_is_the_plan_file(run: Run, model_file: Path, kind: str, share: float) -> None:
    target = model_file.with_name("small.onnx")
    code, out, _ = run("prune", model_file, "-o", target, f"--{kind}", share, "--json", "-")
    assert code == 0
    assert out == target.with_name("small.plan.json").read_text()
    plan = json.loads(out)
    assert plan["budget"]["kind"] == kind
    assert plan["budget"]["achieved"] == pytest.approx(share, abs=0.08)
    stored = sum(
        int(onnx.numpy_helper.to_array(w).size)
        for w in onnx.load(target).graph.initializer
        if w.data_type == 1
    )
    assert plan["params"]["after"] == stored


@pytest.mark.parametrize("ending", ["small.onnx", "small.blocks.npz", "small.onnx.data"])
def test_json_does_not_replace_what_prune_writes(run: Run, model_file: Path, ending: str) -> None:
    out, report = model_file.with_name("small.onnx"), model_file.with_name(ending)
    code, _, err = run("prune", model_file, "-o", out, "--structure", "nm", "--nm", "1:2", "--json", report)
    assert code == 2
    assert "would replace the model or its weights" in err
    assert not out.exists()


def test_reported_channels_are_those_that_went(run: Run, model_file: Path) -> None:
    code, out, _ = run("prune", model_file, "--sparsity", "0.5")
    assert code == 0
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("prunable channels"))
    assert row[2:4] == ["40", "20"]


def test_every_option_reaches_the_engine(run: Run, model_file: Path) -> None:
    arguments = ["--sparsity", "0.25", "--method", "random", "--seed", "3", "--allocation", "uniform"]
    arguments += ["--multiple-of", "4", "--min-channels", "4", "--exclude", "conv2", "--only", "conv*"]
    arguments += ["--input-shape", "x:2,3,8,8", "--attention", "width"]
    code, out, err = run("prune", model_file, *arguments, "--json", "-")
    assert code == 0, err
    plan = json.loads(out)
    expected = graphprune.prune(
        model_file,
        sparsity=0.25,
        method="random",
        seed=3,
        allocation="uniform",
        multiple_of=4,
        min_channels=4,
        exclude=["conv2"],
        only=["conv*"],
        input_shapes={"x": (2, 3, 8, 8)},
        attention="width",
    )
    assert plan["removed"] == expected.plan.to_dict()["removed"]
    assert (plan["method"], plan["seed"]) == ("random", 3)
    assert "conv2.bias" not in plan["removed"]
    assert "analysed as" not in err


def test_ratio_fixes_one_layer(run: Run, model_file: Path) -> None:
    arguments = ["--sparsity", "0.3", "--ratio", "conv1=0.75"]
    code, out, _ = run("prune", model_file, *arguments, "--json", "-")
    assert code == 0
    plan = json.loads(out)
    assert len(plan["removed"]["conv1.weight"]["0"]) == 12


def test_inexact_pruning_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_network(layer_norm=True), path)
    code, out, _ = run("prune", path, "--sparsity", "0.3", "--json", "-")
    assert code == 0
    assert json.loads(out)["fidelity"]["exact"] is True
    code, out, _ = run("prune", path, "--sparsity", "0.3", "--only", "conv2", "--allow-inexact", "--force")
    assert code == 0
    assert "NO: statistics taken over the kept channels only, in norm" in out


def test_existing_files_are_kept_without_force(run: Run, model_file: Path) -> None:
    target = model_file.with_name("model.pruned.onnx")
    plan = model_file.with_name("model.pruned.plan.json")
    for occupied in (target, plan):
        occupied.write_text("mine")
        before = listing(model_file.parent)
        assert_refused(run("prune", model_file, "--sparsity", "0.5"), occupied.name, "--force")
        assert listing(model_file.parent) == before
        occupied.unlink()
    target.write_text("mine")
    code, _, _ = run("prune", model_file, "--sparsity", "0.5", "--force")
    assert code == 0
    onnx.checker.check_model(onnx.load(target))


def test_the_model_itself_is_replaced_only_with_force(run: Run, model_file: Path) -> None:
    before = model_file.read_bytes()
    for name in (model_file, model_file.parent / "." / "model.onnx"):
        assert_refused(run("prune", model_file, "-o", name, "--sparsity", "0.5"), "the model itself")
    assert model_file.read_bytes() == before
    code, out, _ = run("prune", model_file, "-o", model_file, "--sparsity", "0.5", "--force")
    assert code == 0
    assert len(model_file.read_bytes()) < len(before)
    assert "removed" in out


def test_existing_output_is_refused_before_the_work(model_file: Path) -> None:
    model_file.with_name("model.pruned.onnx").write_text("mine")
    program = (
        "import sys\n"
        "from graphprune.__main__ import command_line\n"
        "code = command_line()(['prune', sys.argv[1], '--sparsity', '0.5'])\n"
        "sys.exit(9 if 'onnxruntime' in sys.modules else code)\n"
    )
    assert process(model_file, code=program).returncode == 2


# -- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["exactly one"]),
        (["--sparsity", "0.5", "--params", "0.5"], ["exactly one"]),
        (["--sparsity", "1.5"], ["--sparsity 1.5", "out of range"]),
        (["--sparsity", "-0.1"], ["out of range"]),
        (["--sparsity", "nan"], ["out of range"]),
        (["--sparsity", "abc"], ["--sparsity"]),
        (["--macs", "0.999"], ["cannot be reached", "at most"]),
        (["--sparsity", "0.5", "--method", "magnitud"], ["unknown method", "'magnitude'"]),
        (["--sparsity", "0.5", "--structure", "blocks"], ["unknown structure", "did you mean 'block'"]),
        (["--sparsity", "0.5", "--allocation", "local"], ["--allocation", "global"]),
        (["--sparsity", "0.5", "--attention", "none"], ["--attention", "heads"]),
        (["--sparsity", "0.5", "--multiple-of", "x"], ["--multiple-of", "auto"]),
        (["--sparsity", "0.5", "--multiple-of", "0"], ["--multiple-of", "auto"]),
        (["--sparsity", "0.5", "--min-channels", "0"], ["--min-channels"]),
        (["--sparsity", "0.5", "--seed", "-1"], ["--seed"]),
        (["--sparsity", "0.5", "--ratio", "conv1"], ["--ratio", "PATTERN=0.3"]),
        (["--sparsity", "0.5", "--ratio", "conv1=two"], ["--ratio", "PATTERN=0.3"]),
        (["--sparsity", "0.5", "--ratio", "conv1=1.5"], ["--ratio", "PATTERN=0.3"]),
        (["--sparsity", "0.5", "--ratio", "conv1=nan"], ["--ratio", "PATTERN=0.3"]),
        (["--sparsity", "0.5", "--ratio", "a=0.1", "--ratio", "a=0.2"], ["'a' twice"]),
        (["--sparsity", "0.5", "--ratio", "nosuch=0.2"], ["no node or weight name matches 'nosuch'"]),
        (["--sparsity", "0.5", "--only", "nosuch"], ["no node or weight name matches 'nosuch'"]),
        (["--sparsity", "0.5", "--exclude", "nosuch"], ["no node or weight name matches 'nosuch'"]),
        (["--sparsity", "0.5", "--input-shape", "x"], ["--input-shape", "name:1,3,224,224"]),
        (["--sparsity", "0.5", "--input-shape", "x:1,a"], ["--input-shape", "name:1,3,224,224"]),
        (["--sparsity", "0.5", "--input-shape", "x:1,0,8,8"], ["--input-shape"]),
        (["--sparsity", "0.5", "--input-shape", "z:1,3,8,8"], ["'z'"]),
        (["--sparsity", "0.5", "--input-shape", "x:1,4,8,8"], ["--input-shape x", "fixed to 3"]),
        (["--sparsity", "0.5", "--input-shape", "x:3,8,8"], ["--input-shape x", "3 sizes"]),
        (["--sparsity", "0.5", "-o", "missing-folder/out.onnx"], ["missing-folder", "not a folder"]),
        (["--sparsity", "0.5", "-o", "."], ["is a folder"]),
        (["--sparsity", "0.5", "--json", "missing-folder/x.json"], ["missing-folder", "not a folder"]),
        (["--sparsity", "0.5", "--json", "model.onnx"], ["would replace the model"]),
        (["--sparsity", "0.5", "--json", "model.pruned.onnx"], ["would replace the model"]),
        (["--sparsity", "0.5", "--bogus"], ["--bogus", "--help"]),
        (["--sparsity"], ["--sparsity"]),
        (["--sparsity", "0.5", "extra.onnx"], ["extra.onnx"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_values_are_one_sentence_and_write_nothing(
    run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(model_file.parent)
    before = listing(model_file.parent)
    assert_refused(run("prune", "model.onnx", *arguments), *words)
    assert listing(model_file.parent) == before
    assert [p for p in model_file.parent.iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("command", ["analyze", "prune"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "is not"),
        (b"not an onnx file at all", "is not"),
        (b"\x08\x07", "is not an ONNX model"),
    ],
)
def test_unusable_files(run: Run, tmp_path: Path, command: str, content: bytes | None, words: str) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    budget = ["--sparsity", "0.5"] if command == "prune" else []
    assert_refused(run(command, path, *budget), words)
    assert_refused(run(command, tmp_path, *budget), "folder")


def test_usage_errors(run: Run) -> None:
    assert_refused(run(), "--help")
    assert_refused(run("shrink"), "shrink")
    for command in COMMANDS:
        words = ["--nonsense"] if command == "methods" else []
        assert_refused(run(command, *words), f"graphprune {command} --help")


def test_a_bug_keeps_its_traceback(run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(graphprune.api, "analyze", broken)
    with pytest.raises(ZeroDivisionError):
        run("analyze", model_file)


def test_ctrl_c_is_130(run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(graphprune.api, "analyze", interrupted)
    assert run("analyze", model_file)[0] == 130


def test_a_failed_proof_is_1_and_writes_nothing(
    run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(*_: object, **__: object) -> None:
        raise graphprune.FidelityError("the pruned model differs")

    monkeypatch.setattr(graphprune.api, "prune", failed)
    before = listing(model_file.parent)
    code, out, err = run("prune", model_file, "--sparsity", "0.5")
    assert (code, out, err) == (1, "", "graphprune: the pruned model differs\n")
    assert listing(model_file.parent) == before


# -- verify -------------------------------------------------------------------------------------------


@pytest.fixture
def pruned_file(run: Run, model_file: Path) -> Path:
    """``model_file`` pruned, as model.pruned.onnx beside it."""
    assert run("prune", model_file, "--sparsity", "0.5")[0] == 0
    return model_file.with_name("model.pruned.onnx")


def test_verify_holds(run: Run, model_file: Path, pruned_file: Path) -> None:
    code, out, err = run("verify", model_file, pruned_file)
    assert (code, err) == (0, "")
    assert "holds: max relative difference" in out
    assert "to the unpruned model" in out


def test_verify_json_is_the_fidelity(run: Run, model_file: Path, pruned_file: Path) -> None:
    code, out, _ = run("verify", model_file, pruned_file, "--json", "-")
    assert code == 0
    fidelity = json.loads(out)
    assert fidelity["holds"]
    assert fidelity["max_rel_diff"] <= fidelity["tolerance"]


def test_verify_finds_a_changed_weight(run: Run, model_file: Path, pruned_file: Path) -> None:
    model = onnx.load(pruned_file)
    for node in model.graph.node:
        if node.name == "relu1":
            node.op_type = "Sigmoid"
    onnx.save(model, pruned_file)
    code, out, err = run("verify", model_file, pruned_file)
    assert code == 1
    assert "FAILS" in out
    assert err.startswith("graphprune: ")
    assert "Traceback" not in err


def test_verify_without_a_usable_plan_is_2(run: Run, model_file: Path, pruned_file: Path) -> None:
    plan = model_file.with_name("model.pruned.plan.json")
    moved = plan.rename(plan.with_name("elsewhere.json"))
    assert_refused(run("verify", model_file, pruned_file), "no such plan", "--plan")
    assert run("verify", model_file, pruned_file, "--plan", moved)[0] == 0
    moved.write_text("{")
    assert_refused(run("verify", model_file, pruned_file, "--plan", moved), "not a readable plan")
    moved.write_text("[]")
    assert_refused(run("verify", model_file, pruned_file, "--plan", moved), "not a graphprune plan")


def test_verify_refuses_the_plan_of_another_model(run: Run, model_file: Path, pruned_file: Path) -> None:
    other = model_file.with_name("other.onnx")
    onnx.save(small_network(seed=1), other)
    assert_refused(run("verify", other, pruned_file), "was not made from")


def test_a_vacuous_proof_says_so(run: Run, tmp_path: Path) -> None:
    model = small_network()
    for weight in model.graph.initializer:
        if weight.name == "conv1.weight":
            weight.raw_data = bytes(len(weight.raw_data))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    code, out, _ = run("prune", path, "--sparsity", "0.5", "--method", "random")
    assert code == 0
    assert "VACUOUS" in out
    code, out, _ = run("verify", path, tmp_path / "model.pruned.onnx")
    assert code == 0
    assert "VACUOUS" in out


# -- real processes -----------------------------------------------------------------------------------


def test_module_runs_as_a_program(model_file: Path) -> None:
    done = process("prune", model_file, "--sparsity", "0.5", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["structure"] == "channel"
    done = process("verify", model_file, model_file.with_name("model.pruned.onnx"))
    assert done.returncode == 0, done.stderr
    done = process("prune", model_file, "--sparsity", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_traceback(model_file: Path) -> None:
    command = f"{sys.executable} -m graphprune analyze {model_file} --nodes | true"
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_prune_says_what_inputs_would_buy(run: Run, model_file: Path, tmp_path: Path) -> None:
    code, _, err = run("prune", model_file, "--sparsity", "0.3", "-o", tmp_path / "a.onnx")
    assert code == 0
    assert "with --data and 256 unlabelled inputs" in " ".join(err.split())
    code, _, err = run("prune", model_file, "--sparsity", "0.05", "-o", tmp_path / "b.onnx")
    assert code == 0
    assert "unlabelled" not in err


def test_prune_with_data_and_no_training(run: Run, model_file: Path, tmp_path: Path) -> None:
    value = graphprune.load(model_file).ir.graph.inputs[0]
    shape = [d if isinstance(d, int) else 1 for d in value.shape]
    np.savez(
        tmp_path / "x.npz", **{value.name: np.random.default_rng(0).normal(size=(24, *shape[1:])).astype("f")}
    )
    code, out, err = run(
        "prune",
        model_file,
        "--sparsity",
        "0.3",
        "--data",
        tmp_path / "x.npz",
        "--samples",
        "16",
        "-o",
        tmp_path / "a.onnx",
    )
    assert code == 0, err
    assert "reconstruct (channel)" in out
    plan = json.loads((tmp_path / "a.plan.json").read_text())
    assert plan["calibration"]["samples"] == 16
    assert not (tmp_path / "a.recipe.toml").exists()
    for words, sentence in (
        (("--method", "wanda", "--finetune-epochs", "1"), "--method wanda does not train"),
        (("--compensate", "bias", "--lr", "1e-3"), "--compensate does not train"),
        (("--method", "smart", "--compensate", "bias"), "method smart trains"),
    ):
        code, _, err = run(
            "prune",
            model_file,
            "--sparsity",
            "0.3",
            "--data",
            tmp_path / "x.npz",
            *words,
            "-o",
            tmp_path / "c.onnx",
        )
        assert code == 2
        assert sentence in " ".join(err.split())
    code, _, err = run("prune", model_file, "--sparsity", "0.3", "--samples", "9", "-o", tmp_path / "c.onnx")
    assert code == 2
    assert "--samples goes with a method that looks at inputs" in " ".join(err.split())
