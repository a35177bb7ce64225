"""Speed and memory, measured: ``make bench`` prints the figures and fails where a promise is broken.

Times are medians of several runs on one thread of whatever machine this is.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune.coupling import couple
from graphprune.frontends.loading import load_model
from graphprune.frontends.onnx import build_graph
from graphprune.groups import find_groups
from tests.real_models import light_model

MEGABYTE = 1_000_000


def median_seconds(run: Callable[[], object], times: int = 7) -> float:
    run()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def groups_seconds(model: onnx.ModelProto) -> float:
    graph = build_graph(load_model(model)[0])
    return median_seconds(lambda: find_groups(couple(graph)))


def transformer(layers: int, width: int = 192, heads: int = 4, tokens: int = 32) -> onnx.ModelProto:
    """A decomposed transformer encoder (22 operators a layer), random weights."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        array = rng.standard_normal(shape) / np.sqrt(shape[0])
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def add(op: str, inputs: list[str], out: str, **attrs: object) -> str:
        nodes.append(helper.make_node(op, inputs, [out], name=out, **attrs))
        return out

    def ints(name: str, *values: int) -> str:
        weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    split, join = ints("split", 0, tokens, heads, width // heads), ints("join", 0, tokens, width)
    weights.append(numpy_helper.from_array(np.float32((width // heads) ** -0.5), "scale"))
    x = "x"
    for i in range(layers):
        p = f"l{i}_"
        n = add("LayerNormalization", [x, weight(p + "g", width), weight(p + "b", width)], p + "ln", axis=-1)
        parts = {}
        for role, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            y = add("MatMul", [n, weight(p + "w" + role, width, width)], p + role)
            y = add("Add", [y, weight(p + "b" + role, width)], p + role + "b")
            y = add("Reshape", [y, split], p + role + "r")
            parts[role] = add("Transpose", [y], p + role + "t", perm=perm)
        a = add("Mul", [add("MatMul", [parts["q"], parts["k"]], p + "qk"), "scale"], p + "qks")
        a = add("MatMul", [add("Softmax", [a], p + "sm", axis=-1), parts["v"]], p + "av")
        a = add("Reshape", [add("Transpose", [a], p + "at", perm=[0, 2, 1, 3]), join], p + "ar")
        x = add("Add", [x, add("MatMul", [a, weight(p + "wo", width, width)], p + "o")], p + "res")
        h = add("Gelu", [add("MatMul", [x, weight(p + "w1", width, 4 * width)], p + "h")], p + "gelu")
        x = add("Add", [x, add("MatMul", [h, weight(p + "w2", 4 * width, width)], p + "m")], p + "out")
    add("MatMul", [x, weight("head", width, 10)], "y")
    shape = [1, tokens, width]
    graph = helper.make_graph(
        nodes,
        "transformer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, tokens, 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_labels_and_groups_of_resnet50() -> None:
    seconds = groups_seconds(light_model("resnet50"))
    print(f"\nResNet-50 labels + groups: {seconds * 1e3:.0f} ms (promise: 100 ms)")
    assert seconds <= 0.100


def test_labels_and_groups_of_a_thousand_node_transformer() -> None:
    model = transformer(layers=42)
    assert len(model.graph.node) >= 1000
    seconds = groups_seconds(model)
    print(
        f"\n{len(model.graph.node)}-node transformer labels + groups: {seconds * 1e3:.0f} ms (promise: 500 ms)"
    )
    assert seconds <= 0.500


@pytest.fixture(scope="module")
def hundred_megabytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("big") / "resnet50.onnx"
    onnx.save(light_model("resnet50"), path)
    assert path.stat().st_size > 100 * MEGABYTE
    return path


def test_analyze_of_a_hundred_megabyte_file(hundred_megabytes: Path) -> None:
    command = [sys.executable, "-m", "graphprune", "analyze", str(hundred_megabytes), "--json", "-"]
    seconds = median_seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), times=3)
    print(f"\ngraphprune analyze of a 102 MB file, whole process: {seconds:.2f} s (promise: 2 s)")
    assert seconds <= 2.0


RUN_ORIGINAL = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
first = session.get_inputs()[0]
session.run(None, {first.name: np.ones([1, 3, 224, 224], np.float32)})
"""


def peak_bytes(command: list[str]) -> int:
    """Peak resident memory of a finished child process."""
    code = (
        "import resource,subprocess,sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
    )
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024


def test_peak_memory_of_prune(hundred_megabytes: Path, tmp_path: Path) -> None:
    runtime = peak_bytes([sys.executable, "-c", RUN_ORIGINAL, str(hundred_megabytes)])
    out = tmp_path / "small.onnx"
    prune = peak_bytes(
        [sys.executable, "-m", "graphprune", "prune", str(hundred_megabytes), "-o", str(out)]
        + ["--structure", "channel", "--sparsity", "0.5"]
    )
    size = os.path.getsize(hundred_megabytes)
    allowed = 3 * size + 200 * MEGABYTE
    print(
        f"\npeak memory: onnxruntime alone {runtime / MEGABYTE:.0f} MB, prune {prune / MEGABYTE:.0f} MB, beyond it "
        f"{(prune - runtime) / MEGABYTE:.0f} MB (promise: {allowed / MEGABYTE:.0f} MB)"
    )
    assert prune - runtime <= allowed
