"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune.__main__ import command_line

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Before torch is imported: two workers that both use two threads on two cores wait for each other."""

Run = Callable[..., tuple[int, str, str]]

COMMANDS = (
    "analyze",
    "apply",
    "bench",
    "check",
    "compare",
    "methods",
    "prune",
    "report",
    "rewrite",
    "verify",
)
"""Of the command line: all of them."""


def small_network(seed: int = 0, *, layer_norm: bool = False, head: str = "Gemm") -> onnx.ModelProto:
    """conv1 (16) -> Relu -> conv2 (24) -> Relu -> mean over the image -> fc (5); dynamic batch.

    ``layer_norm`` puts a normalisation over the 24 channels before ``fc``; any other ``head`` than Gemm
    is an operator that nobody knows.
    """
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["a"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], "conv2", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "mean"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
    ]
    weights = [
        weight("conv1.weight", 16, 3, 3, 3),
        weight("conv1.bias", 16),
        weight("conv2.weight", 24, 16, 3, 3),
        weight("conv2.bias", 24),
    ]
    last = "f"
    if layer_norm:
        nodes.append(helper.make_node("LayerNormalization", ["f", "norm.weight", "norm.bias"], ["g"], "norm"))
        weights += [weight("norm.weight", 24), weight("norm.bias", 24)]
        last = "g"
    if head == "Gemm":
        nodes.append(helper.make_node("Gemm", [last, "fc.weight", "fc.bias"], ["y"], "fc", transB=1))
        weights += [weight("fc.weight", 5, 24), weight("fc.bias", 5)]
    else:
        nodes.append(helper.make_node(head, [last], ["y"], "custom", domain="example.com"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5 if head == "Gemm" else None])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.com", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """``small_network`` as model.onnx in an empty folder."""
    path = tmp_path / "model.onnx"
    onnx.save(small_network(), path)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: exit code, stdout, stderr."""
    main = command_line()

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
