"""What the fuzzer found, as small as it gets. See also late_rows and MOVES_ZERO in tests.test_rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.fuzz.judging import judge

HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[1,3,4,4] x) => (float[n,c,h,w] y) {\n'
SHAPES = {"A": (4, 3, 1, 1), "B": (2, 4, 1, 1), "V": (4,), "G": (6, 2, 1, 1), "O": (1, 2, 1, 1)}

NOTHING = "nothing in this model can be pruned"

# name -> nodes, part of the sentence that refuses it (None: it is pruned, and right)
FOUND: dict[str, tuple[str, str | None]] = {
    "mandatory input left out": ("a = Conv(x, A)\nb = Relu()\ny = Conv(a, B)", "onnxruntime cannot run the original"),
    "mandatory input blank": ("a = Conv(x, A)\nb = Relu(<blank>)\nc = Add(a, b)\ny = Conv(c, B)", NOTHING),
    "blank operand of Concat": ("a = Conv(x, A)\nb = Concat<axis=1>(a, <blank>)\ny = Conv(b, B)", NOTHING),
    "blank parameter of a normalisation": (
        "a = Conv(x, A)\nb = BatchNormalization(a, V, V, <blank>, V)\ny = Conv(b, B)", NOTHING,
    ),
    "number of filters no multiple of the groups": (
        "a = Conv(x, A)\nb = Conv<group=2>(a, O)\nc = Add(a, b)\ny = Conv(c, B)", NOTHING,
    ),
    "attribute of another type": ("a = Conv<group=1.5>(x, A)\ny = Conv(a, B)", "must be INT"),
    "Constant with a number for a tensor": ("k = Constant<value=1>()\na = Conv(x, A)\nb = Add(a, k)\ny = Conv(b, B)",
        "must be TENSOR"),
    "weight behind a function that moves zero": (
        "w = Sigmoid(B)\na = Conv(x, A)\nb = Relu(a)\ny = Conv(b, w)", None,
    ),
    "shuffle that nobody reads": (
        "a = Conv(x, A)\nk = Constant<value_ints=[1, 2, 2, 4, 4]>()\nr = Reshape(a, k)\n"
        "t = Transpose<perm=[0, 2, 1, 3, 4]>(r)\nl = Constant<value_ints=[1, 4, 4, 4]>()\nz = Reshape(t, l)\n"
        "y = Conv(a, B)", None,
    ),
}  # fmt: skip


def model_of(nodes: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEAD + nodes.replace("<blank>", "blank") + "\n}")
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    # what inference cannot tell of a damaged node, the file says
    model.graph.value_info.append(
        onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1, 4, 4, 4])
    )
    for node in model.graph.node:
        node.input[:] = ["" if i == "blank" else i for i in node.input]
    return model


@pytest.mark.parametrize("name", FOUND)
def test_found_before(name: str, tmp_path: Path) -> None:
    nodes, sentence = FOUND[name]
    outcome = judge(model_of(nodes), tmp_path, 0)
    if sentence is None:
        assert outcome.kind == "pruned", outcome.text
        assert outcome.compared
        assert outcome.removed
    else:
        assert outcome.kind == "refused", outcome.text
        assert sentence in outcome.text


@pytest.mark.parametrize("nodes", ["s = Shape(b)", "n = Size(b)\ns = Mul(n, n)"])
def test_sizes_that_are_an_output_stay(nodes: str, tmp_path: Path) -> None:
    model = model_of(f"a = Conv(x, A)\nb = Relu(a)\n{nodes}\ny = Conv(b, B)")
    model.graph.output.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.INT64, None))
    outcome = judge(model, tmp_path, 0)
    assert outcome.kind == "refused", outcome.text
    assert "the model's output has these channels" in outcome.text


def test_two_inputs_of_one_name(tmp_path: Path) -> None:
    model = model_of("a = Conv(x, A)\ny = Conv(a, B)")
    model.graph.input.append(model.graph.input[0])
    outcome = judge(model, tmp_path, 0)
    assert outcome.kind == "refused", outcome.text
    assert "two inputs are named 'x'" in outcome.text
