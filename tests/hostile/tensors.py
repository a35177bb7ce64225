"""Tensors: data that does not fit, sizes of 0, NaN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.conftest import small_network
from tests.hostile.kit import (
    Made,
    convolutions,
    model,
    node,
    only_analysed,
    refused,
    right,
    vacuous,
    weight_of,
)


@refused("holds 4 bytes, and its shape")
def data_shorter_than_the_shape(folder: Path) -> Made:
    proto = small_network()
    weight_of(proto, "conv2.weight").raw_data = b"\0\0\0\0"
    return proto


@refused("holds 0 numbers")
def data_missing(folder: Path) -> Made:
    proto = small_network()
    weight_of(proto, "conv2.weight").ClearField("raw_data")
    return proto


@refused("holds its data twice")
def data_twice(folder: Path) -> Made:
    proto = small_network()
    weight_of(proto, "conv2.weight").float_data.extend([0.0] * (24 * 16 * 9))
    return proto


@refused("int64_data, which is not for its element type")
def data_in_the_wrong_field(folder: Path) -> Made:
    proto = small_network()
    tensor = weight_of(proto, "conv2.weight")
    tensor.ClearField("raw_data")
    tensor.int64_data.extend([1] * (24 * 16 * 9))
    return proto


@refused("holds 13824 bytes, and its shape")
def a_weight_of_two_to_the_62(folder: Path) -> Made:
    proto = small_network()
    tensor = weight_of(proto, "conv2.weight")
    del tensor.dims[:]
    tensor.dims.extend([2**31, 2**31])
    return proto


@refused("holds 13824 bytes, and its shape")
def a_shape_whose_product_overflows(folder: Path) -> Made:
    proto = small_network()
    tensor = weight_of(proto, "conv2.weight")
    del tensor.dims[:]
    tensor.dims.extend([2**32, 2**32, 24, 16])
    return proto


@refused("has the shape")
def a_negative_size(folder: Path) -> Made:
    proto = small_network()
    tensor = weight_of(proto, "conv2.weight")
    del tensor.dims[:]
    tensor.dims.extend([-24, -16, 3, 3])
    return proto


@refused("unknown element type 99|not a valid ONNX graph")
def an_unknown_element_type(folder: Path) -> Made:
    proto = small_network()
    weight_of(proto, "conv2.weight").data_type = 99
    return proto


@refused("needs")
def an_int4_weight_without_enough_bytes(folder: Path) -> Made:
    proto = small_network()
    weight_of(proto, "conv2.weight").data_type = TensorProto.INT4
    return proto


@only_analysed("onnxruntime cannot run the original: Got invalid dimensions")
def batch_of_zero(folder: Path) -> Made:
    proto = small_network()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    return proto


@vacuous
def an_axis_of_zero_on_the_way(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    cut = {"from": np.array([0]), "to": np.array([0])}
    return model([*nodes, node("Slice", ["c", "from", "to"], ["y"])], weights | cut)


@only_analysed("nothing in this model can be pruned")
def a_weight_without_elements(folder: Path) -> Made:
    return model([node("Conv", ["x", "w"], ["y"])], {"w": np.zeros((0, 3, 1, 1), np.float32)})


@right
def an_unused_weight_without_elements(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights | {"nothing": np.zeros((0, 7), np.float32)})


def with_weights(change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """``small_network`` with another conv2.weight."""
    proto = small_network()
    tensor = weight_of(proto, "conv2.weight")
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), "conv2.weight"))
    return proto


def put(value: float, places: Any) -> Callable[[np.ndarray], np.ndarray]:
    """An array with ``value`` at some places."""

    def change(array: np.ndarray) -> np.ndarray:
        array[places] = value
        return array

    return change


@only_analysed("'conv2.weight' holds NaN or infinite numbers")
def one_nan(folder: Path) -> Made:
    return with_weights(put(np.nan, (3, 5, 1, 1)))


@only_analysed("'conv2.weight' holds NaN or infinite numbers")
def nothing_but_nan(folder: Path) -> Made:
    return with_weights(put(np.nan, ...))


@only_analysed("'conv2.weight' holds NaN or infinite numbers")
def one_infinity(folder: Path) -> Made:
    return with_weights(put(np.inf, (3, 5, 1, 1)))


@vacuous
def weights_of_zero(folder: Path) -> Made:
    return with_weights(put(0, ...))


@right
def a_channel_of_zero(folder: Path) -> Made:
    return with_weights(put(0, (slice(None), 3)))
