"""New numbers for stored tensors, also in files of old IR versions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune.writeback import with_tensors
from graphprune.writing import to_proto


@pytest.mark.parametrize("version", [3, 8])
def test_a_computed_constant_becomes_an_initializer(version: int) -> None:
    """Before IR 4 an initializer must be a graph input too, or onnx refuses the file."""
    fill = numpy_helper.from_array(np.ones(1, np.float32))
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["size"], value=numpy_helper.from_array(np.array([2, 2]))),
            helper.make_node("ConstantOfShape", ["size"], ["w"], value=fill),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=version)
    numbers = np.arange(4, dtype=np.float32).reshape(2, 2)
    proto = to_proto(with_tensors(ir.from_proto(model), {"w": numbers}))
    onnx.checker.check_model(proto)
    (stored,) = proto.graph.initializer
    assert stored.name == "w"
    assert np.array_equal(numpy_helper.to_array(stored), numbers)
    assert [v.name for v in proto.graph.input] == (["x", "w"] if version < 4 else ["x"])
