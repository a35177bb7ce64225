"""Hostile and odd models: every one comes out right, or as one sentence and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

import graphprune
from tests import oracle
from tests.conftest import Run, small_network
from tests.hostile import bombs, contradictions, element_types, external, files, graphs, operators, tensors
from tests.hostile.kit import CASES, Case, is_one_sentence, model, node, normal

MODULES = (bombs, contradictions, element_types, external, files, graphs, operators, tensors)
"""They tell the cases when they are imported."""

BOMBS = [case for case in CASES if case.make.__module__ == bombs.__name__]
OTHERS = [case for case in CASES if case not in BOMBS]

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.name)
def test_right_or_one_sentence(case: Case, tmp_path: Path, run: Run) -> None:
    source = case.write(tmp_path)
    target = tmp_path / "out" / "small.onnx"
    target.parent.mkdir()
    code, out, err = run("analyze", source)
    if case.analyze is None:
        assert code == 0, err
        assert all(line.isprintable() for line in out.split("\n"))
    else:
        assert (code, out) == (2, "")
        assert is_one_sentence(err, case.analyze), err
    code, out, err = run("prune", source, "--sparsity", 0.3, "--multiple-of", 1, "-o", target)
    written = sorted(path.name for path in target.parent.iterdir())
    if case.prune is not None:
        assert (code, out, written) == (2, "", [])
        assert is_one_sentence(err, case.prune), err
        return
    assert code == 0, err
    assert {"small.onnx", "small.plan.json"} <= set(written)
    assert ("proof     VACUOUS" if case.vacuous else "proof     holds") in out
    assert run("verify", source, target)[0] == 0
    plan = json.loads(target.with_suffix(".plan.json").read_text())
    assert plan["removed"]
    if case.oracle:
        original, pruned = onnx.load(source, format="protobuf"), onnx.load(target)
        assert oracle.difference(oracle.masked(original, pruned, plan), pruned) < oracle.TOLERANCE


def test_the_cases_are_all_there() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 120
    assert len(BOMBS) > 10


RUN_BOMBS = """
import json, pathlib, resource, sys, tempfile
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
from tests.test_hostile import BOMBS
import graphprune
found = {}
for case in BOMBS:
    source = case.write(pathlib.Path(tempfile.mkdtemp()))
    said = []
    for command in (graphprune.analyze, lambda path: graphprune.prune(path, sparsity=0.3)):
        try:
            command(source)
            said.append("")
        except graphprune.GraphpruneError as error:
            said.append(str(error))
    found[case.name] = said
# not ru_maxrss, which starts with that of the process that made this one
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"said": found, "kib": int(peak.split()[1])}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_is_bounded_by_the_size_of_the_file() -> None:
    """Terabytes that a few bytes ask for are never taken: 0.6 GiB serve all of them, Python included."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN_BOMBS]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=RESNET.parents[1], timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for case in BOMBS:
        for words, sentence in zip((case.analyze, case.prune), found["said"][case.name], strict=True):
            assert words is not None
            assert re.search(words, sentence), f"{case.name}: {sentence!r}"
    assert found["kib"] < 600 * 1024


def network_of(layers: int) -> onnx.ModelProto:
    """Residual convolutions with Swish: five nodes per layer."""
    nodes, weights = [node("Conv", ["x", "stem"], ["o0"])], {"stem": normal(8, 3, 1, 1)}
    for i in range(layers):
        weights[f"w{i}"] = normal(8, 8, 1, 1, seed=i)
        nodes += [
            node("Conv", [f"o{i}", f"w{i}"], [f"c{i}"]),
            node("Sigmoid", [f"c{i}"], [f"s{i}"]),
            node("Mul", [f"c{i}", f"s{i}"], [f"m{i}"]),
            node("Relu", [f"m{i}"], [f"r{i}"]),
            node("Add", [f"r{i}", f"o{i}"], [f"o{i + 1}"]),
        ]
    return model(
        [*nodes, node("Conv", [f"o{layers}", "head"], ["y"])], weights | {"head": normal(4, 8, 1, 1)}
    )


def test_five_thousand_nodes() -> None:
    source = network_of(1000)
    start = time.process_time()
    analysis = graphprune.analyze(source)
    assert time.process_time() - start < 5
    assert len(analysis.graph.nodes) == 5002
    assert analysis.prunable_channels == 1001 * 8


# -- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", graphs.NAMES, ids=range(len(graphs.NAMES)))
def test_every_name_can_be_chosen(name: str, tmp_path: Path) -> None:
    """--only takes globs; a name in which * ? [ ] stand for themselves is written with [*] and so on."""
    source = next(case for case in CASES if case.name == "odd_names").write(tmp_path)
    glob = re.sub(r"([*?[])", r"[\1]", f"node {name}")
    result = graphprune.prune(source, sparsity=0.02, only=[glob], multiple_of=1)
    cut = {tensor for tensor, axes in result.plan.removed.items() if "0" in axes}
    assert cut == {f"weight {name}"}


def test_a_path_with_odd_characters(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "größe 🙂 [x]*\n.onnx"
    onnx.save(small_network(), source)
    code, out, err = run("prune", source, "--sparsity", 0.3, "-o", tmp_path / "ö\x1b[31m.onnx")
    assert code == 0, err
    assert all(line.isprintable() for line in out.split("\n"))
    assert (tmp_path / "ö\x1b[31m.plan.json").exists()


def test_a_path_that_is_not_utf8(tmp_path: Path, run: Run) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.onnx"))
    source.write_bytes(small_network().SerializeToString())
    assert run("analyze", source)[0] == 0
    code, out, err = run("prune", source, "--sparsity", 0.3, "-o", tmp_path / "small.onnx")
    assert code == 0, err
    assert all(line.isprintable() for line in out.split("\n"))
    assert run("verify", source, tmp_path / "small.onnx")[0] == 0


def test_unreadable(tmp_path: Path, run: Run) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    source = tmp_path / "model.onnx"
    onnx.save(small_network(), source)
    source.chmod(0)
    code, _, err = run("analyze", source)
    assert code == 2
    assert is_one_sentence(err, "cannot be read")


# -- a plan belongs to the weights beside the model, too ----------------------------------------------


def test_changed_external_data_is_noticed(tmp_path: Path, run: Run) -> None:
    (tmp_path / "model.onnx").write_bytes(external.outside(small_network(), tmp_path).SerializeToString())
    source, small, data = tmp_path / "model.onnx", tmp_path / "small.onnx", tmp_path / "weights.bin"
    assert run("prune", source, "--sparsity", 0.3, "-o", small)[0] == 0
    before = data.read_bytes()
    data.write_bytes(b"other" + before[5:])  # what the model does not read
    assert run("verify", source, small)[0] == 0
    data.write_bytes(before[:64] + bytes(4) + before[68:])
    for command in (("verify", source, small), ("apply", source, tmp_path / "small.plan.json")):
        code, _, err = run(*command)
        assert code == 2
        assert is_one_sentence(err, "was not made from")


def test_the_hash_reads_every_byte_once(tmp_path: Path) -> None:
    """A file may name the same bytes thousands of times."""
    proto = external.outside(small_network(), tmp_path)
    stored = next(t for t in proto.graph.initializer if t.name == "conv2.weight")
    for number in range(500):
        proto.graph.initializer.add().CopyFrom(stored)
        proto.graph.initializer[-1].name = f"copy{number}"
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    loaded = graphprune.load(tmp_path / "model.onnx")
    assert [(s.start, s.stop) for s in loaded.external] == [(64, 64 + 13824)]
