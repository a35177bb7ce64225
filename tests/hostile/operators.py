"""Operators and versions that nobody knows, control flow, local functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import small_network
from tests.hostile.kit import (
    Made,
    convolutions,
    model,
    node,
    normal,
    only_analysed,
    refused,
    right,
    right_by_own_proof,
)


@refused("uses opset 6; graphprune reads 7 and newer")
def opset_6(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights, opset=6)


@refused("uses opset 0; graphprune reads 7 and newer")
def opset_0(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights, opset=0)


@only_analysed("onnxruntime cannot run the original|nothing in this model|opset")
def opset_99(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights, opset=99)


@refused("does not say which opset")
def no_opset(folder: Path) -> Made:
    nodes, weights = convolutions()
    proto = model(nodes, weights)
    del proto.opset_import[:]
    return proto


@only_analysed("onnxruntime cannot run the original")
def a_custom_operator(folder: Path) -> Made:
    return small_network(head="Mystery")


@only_analysed("onnxruntime cannot run the original")
def an_operator_that_does_not_exist(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    return model([*nodes, node("NoSuchOperator", ["c"], ["y"])], weights)


@only_analysed("onnxruntime cannot run the original")
def a_custom_domain_without_an_import(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    return model([*nodes, node("Mystery", ["c"], ["y"], domain="nowhere")], weights)


@only_analysed("onnxruntime cannot run the original")
def too_few_inputs(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    return model([*nodes, node("Conv", ["c"], ["y"])], weights)


@only_analysed("onnxruntime cannot run the original")
def no_inputs_where_some_are_needed(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    return model([*nodes, node("Add", [], ["d"]), node("Mul", ["c", "d"], ["y"])], weights)


@refused("'kernel_shape' of node 'y'")
def attributes_of_the_wrong_type(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    return model([*nodes, node("MaxPool", ["c"], ["y"], kernel_shape="two")], weights)


@right
def optional_inputs_left_out(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    clip = node("Clip", ["c", "", "most"], ["y"])
    return model([*nodes, clip], weights | {"most": np.array(2, np.float32)})


def branch(nodes: Sequence[onnx.NodeProto], output: str, name: str) -> onnx.GraphProto:
    """A sub-graph without inputs."""
    return helper.make_graph(
        nodes, name, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    )


@right
def if_that_captures_a_weight(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    one = branch([node("Conv", ["c", "w3"], ["t"])], "t", "then")
    other = branch([node("Conv", ["c", "w4"], ["e"])], "e", "else")
    choice = node("If", ["flag"], ["y"], then_branch=one, else_branch=other)
    more = {"w3": normal(4, 6, 1, 1), "w4": normal(4, 6, 1, 1, seed=3), "flag": np.array(True)}
    return model([*nodes, choice], weights | more)


@right
def if_in_if_that_captures(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    inner = node(
        "If",
        ["flag"],
        ["i"],
        then_branch=branch([node("Conv", ["b", "w2"], ["u"])], "u", "inner_then"),
        else_branch=branch([node("Identity", ["c"], ["v"])], "v", "inner_else"),
    )
    outer = node(
        "If",
        ["flag"],
        ["y"],
        then_branch=branch([inner], "i", "outer_then"),
        else_branch=branch([node("Neg", ["c"], ["w"])], "w", "outer_else"),
    )
    return model(
        [
            node("Conv", ["x", "w0"], ["z"]),
            node("Conv", ["z", "w00"], ["x1"]),
            *_reading(nodes, "x", "x1"),
            outer,
        ],
        weights | {"flag": np.array(True), "w0": normal(8, 3, 1, 1), "w00": normal(3, 8, 1, 1)},
    )


def _reading(nodes: Sequence[onnx.NodeProto], old: str, new: str) -> list[onnx.NodeProto]:
    for entry in nodes:
        entry.input[:] = [new if name == old else name for name in entry.input]
    return list(nodes)


@right
def loop(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    body = helper.make_graph(
        [node("Relu", ["state"], ["state_out"]), node("Identity", ["go"], ["go_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, None),
        ],
    )
    more = {"times": np.array(2), "yes": np.array(True)}
    return model([*nodes, node("Loop", ["times", "yes", "c"], ["y"], body=body)], weights | more)


@right
def scan(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    body = helper.make_graph(
        [node("Add", ["sum", "row"], ["sum_out"]), node("Identity", ["sum_out"], ["row_out"])],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("sum", "row")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("sum_out", "row_out")],
    )
    start = {"start": np.zeros((6, 8, 8), np.float32)}
    return model(
        [*nodes, node("Scan", ["start", "c"], ["last", "y"], num_scan_inputs=1, body=body)], weights | start
    )


def function(name: str, nodes: Sequence[onnx.NodeProto]) -> onnx.FunctionProto:
    """A local function ``i`` -> ``o``."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["i"], ["o"], list(nodes), opsets)


def call(name: str, source: str, target: str) -> onnx.NodeProto:
    """A node that is a local function."""
    return node(name, [source], [target], domain="local")


@right
def functions_in_functions(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    inner = function("Inner", [node("Relu", ["i"], ["o"])])
    outer = function("Outer", [call("Inner", "i", "t"), call("Inner", "t", "o")])
    return model([*nodes, call("Outer", "c", "y")], weights, functions=[outer, inner])


@refused(r"local functions call themselves \(.*Me.*\)")
def a_function_that_calls_itself(folder: Path) -> Made:
    return model([call("Me", "x", "y")], functions=[function("Me", [call("Me", "i", "o")])])


@refused("local functions call themselves")
def functions_that_call_each_other(folder: Path) -> Made:
    functions = [function("One", [call("Two", "i", "o")]), function("Two", [call("One", "i", "o")])]
    return model([call("One", "x", "y")], functions=functions)


@refused("local functions stand for 4294967295 nodes|local functions stand for")
def a_billion_nodes_in_functions(folder: Path) -> Made:
    functions = [function("F0", [node("Relu", ["i"], ["o"])])]
    for depth in range(1, 31):
        functions.append(
            function(f"F{depth}", [call(f"F{depth - 1}", "i", "t"), call(f"F{depth - 1}", "t", "o")])
        )
    return model([call("F30", "x", "y")], functions=functions)


@right_by_own_proof
def sparse_initializer(folder: Path) -> Made:
    nodes, weights = convolutions()
    dense = weights.pop("w2")
    proto = model(nodes, weights, ir_version=9)
    where = np.arange(0, dense.size, 2)
    values = numpy_helper.from_array(dense.reshape(-1)[where], "w2")
    indices = numpy_helper.from_array(where.astype(np.int64), "")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dense.shape))
    return proto


@refused("claims the shape")
def a_sparse_initializer_of_terabytes(folder: Path) -> Made:
    nodes, weights = convolutions()
    del weights["w2"]
    proto = model(nodes, weights, ir_version=9)
    values = numpy_helper.from_array(np.ones(1, np.float32), "w2")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**20, 2**20]))
    return proto
