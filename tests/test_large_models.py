"""Size: memory stays a small multiple of a model's own, weights are mapped and not loaded, and limits are not met.

The larger models of tests/benchmarks/test_large.py (2.5 GB, with the same promises) run in ``make bench``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphprune
from graphprune import hashing, running, slabs
from graphprune.errors import OptionError
from graphprune.mapped import array_of, copy_of, is_external, replacing
from tests.conftest import Run, small_network
from tests.large_models import Usage, large_matrices, large_transformer, measured, megabytes
from tests.marks import slow

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory and open files are read from /proc")

BASELINE = 250
"""Megabytes that every prune takes: the interpreter with onnxruntime (150), and parts of a large weight (100)."""


def _prune(model: Path, *options: object) -> Usage:
    used = measured("prune", model, *options, "-o", model.with_name("small.onnx"))
    assert used.code == 0, used.output
    plan = json.loads(model.with_name("small.plan.json").read_text(encoding="utf-8"))
    assert plan["fidelity"]["holds"]
    assert not plan["fidelity"]["vacuous"]
    return used


# -- memory ---------------------------------------------------------------------------------------------


@linux
def test_analyze_reads_no_weights(tmp_path: Path) -> None:
    """2.5 GB of holes: on the disk they are nothing, and in memory they would be 2.5 GB."""
    model = large_transformer(tmp_path / "model.onnx", megabytes=2500, width=2048, holes=True)
    used = measured("analyze", model)
    assert used.code == 0, used.output
    assert used.peak < 300


@linux
def test_channels_take_twice_the_size(tmp_path: Path) -> None:
    """The pruned weights, and the original's as they are mapped."""
    model = large_transformer(tmp_path / "model.onnx", megabytes=280, width=768)
    used = _prune(model, "--sparsity", 0.5)
    assert used.peak < 2 * megabytes(model) + BASELINE


@linux
@pytest.mark.parametrize("pattern", slow(["block", "nm"], {"block"}))
def test_patterns_of_one_large_weight_take_three_times_the_size(tmp_path: Path, pattern: str) -> None:
    """Nothing is spread over tensors here: the weight, a copy of it and masks are what there may be."""
    model = large_matrices(tmp_path / "model.onnx", 6144, 6144, 64, 10)
    used = _prune(model, "--structure", pattern, *(("--sparsity", 0.5) if pattern == "block" else ()))
    assert used.peak < 3 * megabytes(model) + BASELINE


# -- mapped weights ---------------------------------------------------------------------------------------


def _external(folder: Path, array: np.ndarray, dtype: ir.DataType | None = None) -> ir.ExternalTensor:
    tensor = ir.Tensor(array, dtype=dtype, name="w")
    (folder / "w.data").write_bytes(b"before" + tensor.tobytes())
    return ir.ExternalTensor(
        "w.data", 6, tensor.nbytes, tensor.dtype, shape=tensor.shape, name="w", base_dir=folder
    )


@pytest.mark.parametrize("kind", ["FLOAT", "BFLOAT16", "INT4", "INT64"])
@pytest.mark.parametrize("shape", [(3, 5), (400, 300), (0, 4), ()])
def test_mapped_weights_are_those_of_the_file(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    dtype = ir.DataType[kind]
    array = np.random.default_rng(0).integers(-8, 8, shape).astype(dtype.numpy())
    tensor = _external(tmp_path, array, dtype)
    for read in (array_of, copy_of):
        found = read(tensor)
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes()
    copy_of(tensor)[...] = 1
    assert array_of(tensor).tobytes() == array.tobytes()
    assert tensor.raw is None  # no mapping is kept


def test_replaced_weights_stay_in_another_file(tmp_path: Path) -> None:
    tensor = _external(tmp_path, np.ones(9, np.float32))
    tensor.doc_string = "why"
    new = replacing(replacing(tensor, np.zeros(3, np.float32)), np.zeros(2, np.float32))
    assert is_external(new)
    assert (new.name, new.doc_string, new.dtype) == ("w", "why", tensor.dtype)
    assert not is_external(replacing(ir.Tensor(np.ones(2)), np.ones(1)))


def test_a_model_with_external_data_is_written_with_external_data(tmp_path: Path, run: Run) -> None:
    """Also where every weight was changed, so that none of the original's is left."""
    model = large_matrices(tmp_path / "model.onnx", 64, 128, 32)
    code, _, error = run("prune", model, "--structure", "nm", "-o", tmp_path / "small.onnx")
    assert code == 0, error
    assert (tmp_path / "small.onnx.data").stat().st_size == 4 * (64 * 128 + 128 * 32)
    code, out, error = run("verify", model, tmp_path / "small.onnx")
    assert code == 0, out + error


@linux
def test_files_do_not_stay_open(tmp_path: Path, run: Run) -> None:
    """Every mapping takes an open file: a model has more weights than a process may have files."""
    model = large_transformer(tmp_path / "model.onnx", megabytes=55, width=256)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (now + 24, hard))
    try:
        code, _, error = run("prune", model, "--sparsity", 0.3, "-o", tmp_path / "small.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert code == 0, error
    stored = ir.load(model).graph.initializers.values()
    assert sum(v.const_value.nbytes > 1 << 16 for v in stored if v.const_value is not None) > 60


# -- parts of a weight --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (1, 9), (100, 3, 3), (64, 33), (0, 5)])
@pytest.mark.parametrize("of", [1, 4])
def test_slabs_cover_axis_0(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], of: int) -> None:
    monkeypatch.setattr(slabs, "SLAB_ELEMENTS", 50)
    parts = list(slabs.slabs(shape, of))
    assert [i for part in parts for i in range(*part.indices(shape[0]))] == list(range(shape[0]))
    assert all(part.start % of == 0 for part in parts)


@pytest.mark.parametrize(
    "options", ["--structure nm", "--structure nm --nm-axis output", "--structure block"]
)
def test_parts_of_any_size_give_the_same_file(
    model_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    words = [*options.split(), *(("--sparsity", "0.4", "--block", "4x4x1x1") if "block" in options else ())]
    files = []
    for size in (1 << 21, 20):
        monkeypatch.setattr(slabs, "SLAB_ELEMENTS", size)
        target = model_file.with_name(f"{size}.onnx")
        code, _, error = run("prune", model_file, *words, "-o", target)
        assert code == 0, error
        with np.load(target.with_suffix(".blocks.npz")) as stored:
            arrays = {name: stored[name].tobytes() for name in stored.files if name != "index"}
        files.append((hashlib.sha256(target.read_bytes()).hexdigest(), arrays))
    assert files[0] == files[1]


@pytest.mark.parametrize("count", [1, 4, 8, 9])
@pytest.mark.parametrize("kind", ["floats", "small integers", "with NaN", "with minus infinity"])
def test_largest_of_every_row(count: int, kind: str) -> None:
    rng = np.random.default_rng(count)
    rows = rng.standard_normal((500, count)) if kind == "floats" else rng.integers(0, 3, (500, count)) * 1.0
    if kind.startswith("with"):
        rows[rng.random(rows.shape) < 0.2] = np.nan if "NaN" in kind else -np.inf
    for keep in range(count + 1):
        mask = slabs.largest(rows, keep)
        for row, found in zip(rows.tolist(), mask, strict=True):
            order = sorted(range(count), key=lambda i: (math.isnan(row[i]), -row[i], i))
            assert sorted(order[:keep]) == np.flatnonzero(found).tolist()


# -- sessions ---------------------------------------------------------------------------------------------


def test_a_session_maps_weights_from_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = graphprune.load(large_matrices(tmp_path / "model.onnx", 64, 128, 32)).ir
    feed = {"x": np.ones((1, 64), np.float32)}
    with running.Session(model) as session:
        wanted = session.run(feed)
    monkeypatch.setattr(running, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", None)  # nothing is to be written
    with running.Session(model) as session:
        found = session.run(feed)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-5)


def test_no_room_for_the_proof_is_one_sentence(
    model_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(running, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(running.ir, "save", full)
    code, out, error = run("prune", model_file, "--sparsity", 0.3)
    assert code == OptionError.exit_code
    assert "TMPDIR" in error
    assert "No space left" in error
    assert out == ""


# -- models in memory ---------------------------------------------------------------------------------------


def test_hash_of_a_model_too_large_for_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(change: float = 0.0) -> str:
        proto = small_network()
        weights = onnx.numpy_helper.to_array(proto.graph.initializer[2]) + np.float32(change)
        proto.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(weights, "conv2.weight"))
        return graphprune.load(proto).sha256()

    plain = digest()
    monkeypatch.setattr(hashing, "ONE_MESSAGE_BYTES", 1000)
    assert digest() == digest() != plain
    assert digest(1e-3) != digest()
