"""Graphs and tensors that contradict themselves."""

from __future__ import annotations

from pathlib import Path

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


@refused("not valid")
def cycle(folder: Path) -> Made:
    return model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])])


@refused("not a valid ONNX graph")
def two_nodes_write_one_name(folder: Path) -> Made:
    return model(
        [node("Relu", ["x"], ["a"], "n1"), node("Neg", ["x"], ["a"], "n2"), node("Relu", ["a"], ["y"])]
    )


@refused("not a valid ONNX graph")
def a_node_writes_an_input(folder: Path) -> Made:
    return model([node("Relu", ["x"], ["x"]), node("Relu", ["x"], ["y"])])


@refused("not a valid ONNX graph")
def a_node_writes_a_weight(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model([node("Relu", ["x"], ["w2"]), *nodes], weights)


@right_by_own_proof
def duplicate_node_names(folder: Path) -> Made:
    proto = small_network()
    for entry in proto.graph.node:
        entry.name = "same"
    return proto


@right
def no_node_names(folder: Path) -> Made:
    proto = small_network()
    for entry in proto.graph.node:
        entry.name = ""
    return proto


@refused("two initializers are named 'conv1.weight'")
def duplicate_initializer_names(folder: Path) -> Made:
    proto = small_network()
    proto.graph.initializer.append(numpy_helper.from_array(normal(16, 3, 3, 3, seed=9), "conv1.weight"))
    return proto


@refused("never produced|not valid")
def reads_what_nobody_writes(folder: Path) -> Made:
    return model([node("Add", ["x", "nothing"], ["y"])])


@refused("produced by no node")
def an_output_that_nobody_writes(folder: Path) -> Made:
    return model([node("Relu", ["x"], ["a"])])


@right
def no_shapes_recorded(folder: Path) -> Made:
    proto = small_network()
    del proto.graph.value_info[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


@only_analysed("not known|--input-shape|nothing in this model")
def no_shapes_at_all(folder: Path) -> Made:
    proto = small_network()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


@only_analysed("onnxruntime cannot run the original")
def wrong_shapes_recorded(folder: Path) -> Made:
    proto = small_network()
    for name, shape in (("a", [1, 5, 2, 2]), ("d", [7]), ("f", [2, 3, 4])):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return proto


@right
def wrong_output_shape(folder: Path) -> Made:
    proto = small_network()
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 3]))
    return proto


@only_analysed("nothing in this model can be pruned")
def weights_that_do_not_fit(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights | {"w2": normal(6, 9, 1, 1)})
