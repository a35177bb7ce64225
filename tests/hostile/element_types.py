"""Weights in every element type that ONNX has names for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.hostile.kit import (
    Made,
    convolutions,
    model,
    node,
    normal,
    only_analysed,
    right,
    right_by_own_proof,
)


def in_type(dtype: int, numpy_type: Any) -> onnx.ModelProto:
    """Two matrix products in another floating-point type."""
    nodes = [
        node("MatMul", ["x", "w1"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w2"], ["y"]),
    ]
    weights = {"w1": normal(4, 16).astype(numpy_type), "w2": normal(16, 5, seed=1).astype(numpy_type)}
    return model(nodes, weights, inputs={"x": [2, 4]}, dtype=dtype)


@right_by_own_proof
def float64(folder: Path) -> Made:
    return in_type(TensorProto.DOUBLE, np.float64)


@right_by_own_proof
def float16(folder: Path) -> Made:
    return in_type(TensorProto.FLOAT16, np.float16)


@right_by_own_proof
def bfloat16(folder: Path) -> Made:
    return in_type(TensorProto.BFLOAT16, ml_dtypes.bfloat16)


@only_analysed("nothing in this model can be pruned")
def float8(folder: Path) -> Made:
    return in_type(TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn)


def quantised(weight_type: int, *, opset: int = 21, axis: int | None = None) -> onnx.ModelProto:
    """conv1 -> Relu -> conv2, whose weights go through DequantizeLinear."""
    nodes, weights = convolutions()
    stored = []
    for number, (name, array) in enumerate(weights.items()):
        steps = array.shape[0] if axis is not None else 1
        scale = np.full(steps, 0.5, np.float32) if axis is not None else np.array(0.5, np.float32)
        zero = [0] * steps
        stored += [
            helper.make_tensor(
                f"{name}_q", weight_type, array.shape, [int(v) for v in np.rint(array).clip(0, 3).flat]
            ),
            numpy_helper.from_array(scale, f"{name}_s"),
            helper.make_tensor(f"{name}_z", weight_type, [steps] if axis is not None else [], zero),
        ]
        more = {} if axis is None else {"axis": axis}
        nodes.insert(
            number, node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [name], **more)
        )
    proto = model(nodes, opset=opset, ir_version=10)
    proto.graph.initializer.extend(stored)
    return proto


@right_by_own_proof
def int8_weights(folder: Path) -> Made:
    return quantised(TensorProto.INT8, axis=0)


@right_by_own_proof
def uint8_weights(folder: Path) -> Made:
    return quantised(TensorProto.UINT8)


@right_by_own_proof
def int16_weights(folder: Path) -> Made:
    return quantised(TensorProto.INT16)


@right_by_own_proof
def int4_weights(folder: Path) -> Made:
    return quantised(TensorProto.INT4, axis=0)


@right_by_own_proof
def uint4_weights(folder: Path) -> Made:
    return quantised(TensorProto.UINT4)


@right_by_own_proof
def float8_weights(folder: Path) -> Made:
    return quantised(TensorProto.FLOAT8E4M3FN)


@only_analysed("onnxruntime cannot run the original: Could not find an implementation")
def float4_weights(folder: Path) -> Made:
    return quantised(TensorProto.FLOAT4E2M1, opset=23)


@only_analysed("nothing in this model can be pruned")
def string_tensors(folder: Path) -> Made:
    words = helper.make_tensor("words", TensorProto.STRING, [2], ["one", "two"])
    proto = model(
        [node("Equal", ["x", "words"], ["y"])], inputs={"x": [2]}, opset=19, dtype=TensorProto.STRING
    )
    proto.graph.initializer.append(words)
    return proto


@right
def string_tensors_beside_numbers(folder: Path) -> Made:
    nodes, weights = convolutions()
    proto = model([*nodes, node("Identity", ["words"], ["text"])], weights)
    proto.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [2], ["one", "two"]))
    return proto
