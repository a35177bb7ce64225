"""Each rewrite rule by itself: where it applies, where it must not, and that the result is equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphprune
from graphprune.rewriting import RewriteResult, all_rewrite_rules, registry, rewrite_rule
from graphprune.targets.target import Target
from tests import random_graphs
from tests.real_models import light_model, shared_models

ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}
EVERYTHING = tuple(dict.fromkeys(op for r in all_rewrite_rules().values() for op in r.replaces))


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """``com.microsoft::Gelu``, names separated by blanks (``-`` for an absent input)."""
    domain, _, name = op.rpartition("::")
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(
        name, names, outputs.split(), name=f"{name}_{outputs.split()[0]}", domain=domain, **attributes
    )


def build(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    dtype: str = "float32",
    outputs: Sequence[str] = ("y",),
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model with input ``x`` and the given outputs, whose shapes are left to inference."""
    tensors = [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()]
    inputs = [helper.make_tensor_value_info("x", ELEMENT[dtype], shape)]
    if ir_version < 4:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    ends = [helper.make_tensor_value_info(name, ELEMENT[dtype], None) for name in outputs]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "test", inputs, ends, tensors)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11 if opset > 21 else ir_version)
    model = onnx.shape_inference.infer_shapes(model)
    for output in model.graph.output:
        if not output.type.tensor_type.HasField("shape"):  # of contributed operators
            output.CopyFrom(helper.make_tensor_value_info(output.name, ELEMENT[dtype], shape))
    return model


def values(model: onnx.ModelProto, seed: int = 0, shape: Sequence[int] | None = None) -> list[np.ndarray]:
    """Outputs in onnxruntime as users run it (optimised), for one random input."""
    given = model.graph.input[0].type.tensor_type
    sizes = shape or [d.dim_value or 2 for d in given.shape.dim]
    x = (
        np.random.default_rng(seed)
        .normal(0, 3, sizes)
        .astype(helper.tensor_dtype_to_np_dtype(given.elem_type))
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


def ops(result: RewriteResult) -> Counter[str]:
    """How often each operator occurs in the result."""
    return Counter(n.op_type for n in result.model.to_onnx().graph.node)


def rewritten(
    model: onnx.ModelProto,
    lacks: Sequence[str] = (),
    rules: Sequence[str] = (),
    *,
    exact: bool = False,
    shape: Sequence[int] | None = None,
    input_shapes: dict[str, Sequence[int]] | None = None,
) -> RewriteResult:
    """Rewrite, and compare with the original by other means than the proof's."""
    before = model.SerializeToString()
    target = Target("test", lacks=tuple(lacks)) if lacks else None
    result = graphprune.rewrite(model, target=target, rules=rules, input_shapes=input_shapes)
    assert model.SerializeToString() == before
    assert result.fidelity.holds
    written = result.model.to_onnx()
    onnx.checker.check_model(written)
    for found, wanted in zip(values(written, shape=shape), values(model, shape=shape), strict=True):
        assert found.dtype == wanted.dtype
        if exact:
            np.testing.assert_array_equal(found, wanted)
        else:
            scale = np.abs(wanted).max()
            np.testing.assert_allclose(
                found, wanted, atol=scale * (1e-2 if found.dtype == np.float16 else 1e-5)
            )
    return result


def random(*shape: int, seed: int = 1, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# -- means -------------------------------------------------------------------------------------------


def mean(
    axes: Sequence[int] | None, keepdims: int, opset: int
) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    """ReduceMean as the opset spells it."""
    if opset < 18:
        attributes = {} if axes is None else {"axes": list(axes)}
        return node("ReduceMean", "x", "y", keepdims=keepdims, **attributes), {}
    if axes is None:
        return node("ReduceMean", "x", "y", keepdims=keepdims), {}
    return node("ReduceMean", "x axes", "y", keepdims=keepdims), {"axes": np.array(axes, np.int64)}


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_means_over_any_axes_but_the_batch(data: st.DataObject) -> None:
    rank = data.draw(st.integers(2, 5))
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=rank - 1, max_size=rank - 1))
    axes = data.draw(st.sets(st.integers(1, rank - 1), min_size=1))
    spelled = [a - rank if data.draw(st.booleans()) else a for a in axes]
    opset, keepdims = (
        data.draw(st.sampled_from((7, 10, 12, 13, 17, 18, 20))),
        data.draw(st.sampled_from((0, 1))),
    )
    step, weights = mean(spelled, keepdims, opset)
    result = rewritten(build([step], ["N", *sizes], weights, opset=opset), ["ReduceMean"])
    assert not result.left
    assert not ops(result)["ReduceMean"]
    if rank >= 3 and len(axes) >= 2 and min(axes) >= 2:
        assert result.applied == {"global-pool": 1}
    else:
        assert result.applied == {"axis-mean": 1}


@pytest.mark.parametrize("opset", [7, 11, 13, 22])
@pytest.mark.parametrize("shape", [("N", 4, 6), ("N", 4, 5, 7), (2, 3, 4, 5, 6), (1, 4, 1, 1)])
def test_global_average_pool(opset: int, shape: tuple[int | str, ...]) -> None:
    result = rewritten(
        build([node("GlobalAveragePool", "x", "y")], shape, opset=opset), ["GlobalAveragePool"]
    )
    assert set(ops(result)) == {"AveragePool"}
    assert ops(result)["AveragePool"] == (max(1, sum(s != 1 for s in shape[2:])))


def test_rows_come_before_columns() -> None:
    step, weights = mean([2, 3], 1, 17)
    result = rewritten(build([step], ["N", 4, 5, 7], weights), ["ReduceMean"])
    windows = [list(n.attribute[0].ints) for n in result.model.to_onnx().graph.node]
    assert windows == [[5, 1], [1, 7]]


def test_a_mean_over_nothing_is_the_identity() -> None:
    steps = [node("ReduceMean", "x", "m", noop_with_empty_axes=1), node("Relu", "m", "y")]
    result = rewritten(build(steps, ["N", 4, 5, 5], opset=18), ["ReduceMean"], exact=True)
    assert ops(result) == {"Identity": 1, "Relu": 1}


@pytest.mark.parametrize("axes", [None, [0], [0, 2, 3]])
def test_a_mean_over_the_batch_is_left(axes: list[int] | None) -> None:
    step, weights = mean(axes, 1, 18)
    result = rewritten(build([step], [2, 4, 5, 5], weights, opset=18), ["ReduceMean"])
    assert [(e.node, e.op) for e in result.left] == [("ReduceMean_y", "ReduceMean")]
    assert "axis 0" in result.left[0].why


def test_sizes_that_depend_on_the_input_are_left_until_they_are_given() -> None:
    model = build([node("Relu", "x", "r"), node("GlobalAveragePool", "r", "y")], ["N", 3, "H", "W"])
    result = rewritten(model, ["GlobalAveragePool"], shape=[2, 3, 9, 6])
    assert not result.applied
    assert "--input-shape" in result.left[0].why
    assert result.lacking == result.left
    result = rewritten(model, ["GlobalAveragePool"], shape=[2, 3, 8, 6], input_shapes={"x": (1, 3, 8, 6)})
    assert not result.left
    dims = result.model.to_onnx().graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == [
        "N",
        3,
        8,
        6,
    ]  # other sizes would be wrong in silence


def test_sizes_that_an_adaptive_layer_fixes_are_known() -> None:
    """Dynamic height and width, but 4 x 4 after a Resize to fixed sizes."""
    steps = [node("Resize", "x - - sizes", "r"), node("ReduceMean", "r", "y", axes=[2, 3])]
    model = build(steps, [1, 3, "H", "W"], {"sizes": np.array([1, 3, 4, 4], np.int64)})
    assert rewritten(model, ["ReduceMean"], shape=[1, 3, 6, 7]).applied == {"global-pool": 1}


def test_axes_that_are_computed_are_left() -> None:
    steps = [
        node("Cast", "x", "c", to=TensorProto.INT64),
        node("ReduceMax", "c", "axes", keepdims=0),
        node("Unsqueeze", "axes zero", "a"),
        node("Mul", "a zero", "b"),
        node("ReduceMean", "x b", "y"),
    ]
    result = rewritten(build(steps, [2, 3], {"zero": np.zeros(1, np.int64)}, opset=18), ["ReduceMean"])
    assert "run time" in result.left[0].why


def test_means_of_integers_are_left() -> None:
    steps = [
        node("Cast", "x", "i", to=TensorProto.INT32),
        node("ReduceMean", "i", "m", axes=[2, 3]),
        node("Cast", "m", "y", to=TensorProto.FLOAT),
    ]
    assert "int32" in rewritten(build(steps, [2, 3, 4, 4]), ["ReduceMean"]).left[0].why


def test_layer_norm_written_out() -> None:
    """Two means over the last axis."""
    steps = [
        node("ReduceMean", "x", "m", axes=[-1]),
        node("Sub", "x m", "c"),
        node("Mul", "c c", "s"),
        node("ReduceMean", "s", "v", axes=[-1]),
        node("Sqrt", "v", "d"),
        node("Div", "c d", "y"),
    ]
    result = rewritten(build(steps, ["N", "tokens", 24]), ["ReduceMean"], shape=[2, 7, 24])
    assert result.applied == {"axis-mean": 2}
    assert ops(result)["MatMul"] == 2


# -- spreading ----------------------------------------------------------------------------------------


def squeeze_excite(meet: str = "Mul", pool: str = "GlobalAveragePool") -> list[onnx.NodeProto]:
    """x * sigmoid(conv(mean(x)))."""
    first = node(pool, "x", "p") if pool == "GlobalAveragePool" else node(pool, "x", "p", axes=[2, 3])
    return [first, node("Conv", "p w", "c"), node("Sigmoid", "c", "s"), node(meet, "x s", "y")]


@pytest.mark.parametrize("opset", [10, 11, 13, 17])
@pytest.mark.parametrize("meet", ["Mul", "Add", "Sub", "Div"])
def test_a_pooled_context_is_spread_before_it_meets_the_map(opset: int, meet: str) -> None:
    model = build(squeeze_excite(meet, "ReduceMean"), ["N", 4, 6, 5], {"w": random(4, 4, 1, 1)}, opset=opset)
    result = rewritten(model, ["ReduceMean"])
    assert result.applied == {"global-pool": 1, "spread-context": 1}
    assert ops(result) == {"AveragePool": 2, "Conv": 1, "Sigmoid": 1, "Resize": 1, meet: 1}


def test_what_the_model_broadcast_before_stays() -> None:
    model = build(squeeze_excite(), ["N", 4, 6, 5], {"w": random(4, 4, 1, 1)})
    assert not rewritten(model, ["ReduceMean"]).applied
    assert ops(rewritten(model, ["GlobalAveragePool", "Resize"]))["Resize"] == 0


# -- activations --------------------------------------------------------------------------------------


ACTIVATIONS = [
    (node("HardSwish", "x", "y"), 14, (), {"HardSigmoid": 1, "Mul": 1}),
    (node("HardSwish", "x", "y"), 14, ("HardSigmoid",), {"Add": 1, "Clip": 1, "Mul": 2}),
    (node("HardSwish", "x", "y"), 22, ("HardSigmoid",), {"Add": 1, "Clip": 1, "Mul": 2}),
    (node("HardSigmoid", "x", "y"), 13, (), {"Mul": 1, "Add": 1, "Clip": 1}),
    (node("HardSigmoid", "x", "y", alpha=0.3, beta=0.4), 7, (), {"Mul": 1, "Add": 1, "Clip": 1}),
    (node("Swish", "x", "y"), 24, (), {"Sigmoid": 1, "Mul": 1}),
    (node("Swish", "x", "y", alpha=1.7), 24, (), {"Sigmoid": 1, "Mul": 2}),
    (node("com.microsoft::QuickGelu", "x", "y"), 17, (), {"Sigmoid": 1, "Mul": 2}),
    (node("com.microsoft::QuickGelu", "x", "y", alpha=1.0), 17, (), {"Sigmoid": 1, "Mul": 1}),
    (node("Mish", "x", "y"), 18, (), {"Softplus": 1, "Tanh": 1, "Mul": 1}),
    (node("Gelu", "x", "y"), 20, (), {"Erf": 1, "Mul": 3, "Add": 1}),
    (node("Gelu", "x", "y", approximate="tanh"), 20, (), {"Tanh": 1, "Mul": 6, "Add": 2}),
    (node("com.microsoft::Gelu", "x", "y"), 17, (), {"Erf": 1, "Mul": 3, "Add": 1}),
    (node("com.microsoft::BiasGelu", "x b", "y"), 17, (), {"Erf": 1, "Mul": 3, "Add": 2}),
    (node("com.microsoft::FastGelu", "x", "y"), 17, (), {"Tanh": 1, "Mul": 6, "Add": 2}),
    (node("com.microsoft::FastGelu", "x b", "y"), 17, (), {"Tanh": 1, "Mul": 6, "Add": 3}),
]


@pytest.mark.parametrize(
    ("step", "opset", "also", "expected"), ACTIVATIONS, ids=lambda v: getattr(v, "op_type", "")
)
def test_activations(
    step: onnx.NodeProto, opset: int, also: tuple[str, ...], expected: dict[str, int]
) -> None:
    name = f"{step.domain}::{step.op_type}" if step.domain else step.op_type
    model = build([step], ["N", 5, 8], {"b": random(8)} if "b" in step.input else {}, opset=opset)
    result = rewritten(model, [name, *also])
    assert ops(result) == expected
    assert not result.left


@pytest.mark.parametrize(
    "op", ["HardSwish", "Mish", "Gelu", "GlobalAveragePool", "BatchNormalization", "ReduceMean"]
)
def test_half_precision(op: str) -> None:
    inputs = "x g b m v" if op == "BatchNormalization" else "x"
    opset = 17 if op == "ReduceMean" else 20
    steps = [node(op, inputs, "y", **({"axes": [1]} if op == "ReduceMean" else {}))]
    model = build(
        steps, [2, 6, 4, 3], statistics(6, "float16") if len(inputs) > 1 else {}, opset=opset, dtype="float16"
    )
    assert not rewritten(model, [op, "HardSigmoid"]).left


def test_double_precision_is_left() -> None:
    model = build([node("ReduceMean", "x", "y", axes=[2, 3])], [2, 3, 4, 4], dtype="float64")
    assert "float64" in rewritten(model, ["ReduceMean"]).left[0].why


def test_a_model_that_onnxruntime_cannot_run() -> None:
    model = build([node("HardSigmoid", "x", "y")], [2, 9], dtype="float64")
    with pytest.raises(graphprune.ModelError, match="cannot run the original"):
        graphprune.rewrite(model, rules=["hard-sigmoid"])


@given(alpha=st.floats(0.05, 2), beta=st.floats(-1, 2))
@settings(max_examples=20, deadline=None)
def test_hard_sigmoid_of_any_slope(alpha: float, beta: float) -> None:
    rewritten(build([node("HardSigmoid", "x", "y", alpha=alpha, beta=beta)], [3, 40]), ["HardSigmoid"])


def test_sigmoid_itself_cannot_be_replaced() -> None:
    """x * Sigmoid(x) has no equal without Sigmoid."""
    model = build([node("Sigmoid", "x", "s"), node("Mul", "x s", "y")], [2, 5])
    result = rewritten(model, ["Sigmoid"])
    assert [(e.op, e.why) for e in result.left] == [("Sigmoid", "none of the rules that ran replaces it")]
    result = rewritten(
        build([node("com.microsoft::QuickGelu", "x", "y")], [2, 5]), ["com.microsoft::QuickGelu", "Sigmoid"]
    )
    assert "needs Sigmoid" in result.left[0].why
    assert not result.applied


# -- batch normalisation --------------------------------------------------------------------------------


def statistics(channels: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    parts = {
        "g": rng.uniform(0.5, 2, channels),
        "b": rng.normal(size=channels),
        "m": rng.normal(size=channels),
    }
    return {k: v.astype(dtype) for k, v in (parts | {"v": rng.uniform(0.2, 2, channels)}).items()}


def normalised(first: onnx.NodeProto, **attributes: Any) -> list[onnx.NodeProto]:
    return [first, node("BatchNormalization", "h g b m v", "y", **attributes)]


@pytest.mark.parametrize("opset", [7, 9, 14, 17])
@pytest.mark.parametrize("bias", ["", " c"])
@pytest.mark.parametrize(
    ("op", "weight", "attributes"),
    [
        ("Conv", (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("Conv", (6, 2, 3, 3), {"group": 2, "strides": [2, 2]}),
        ("ConvTranspose", (4, 6, 2, 2), {"strides": [2, 2]}),
        ("ConvTranspose", (4, 3, 2, 2), {"group": 2}),
    ],
)
def test_folding_into_convolutions(
    opset: int, bias: str, op: str, weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    weights = {"w": random(*weight), **statistics(6), **({"c": random(6)} if bias else {})}
    model = build(
        normalised(node(op, f"x w{bias}", "h", **attributes), epsilon=1e-3),
        ["N", 4, 7, 7],
        weights,
        opset=opset,
    )
    result = rewritten(model, rules=["fold-batchnorm"])
    written = result.model.to_onnx()
    assert ops(result) == {op: 1}
    assert written.graph.node[0].name == f"{op}_h"
    names = {t.name for t in written.graph.initializer}
    assert {"w"} <= names  # plans and sidecars know weights by name
    assert len(names) == 2


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (), (1,), (6,), (1, 6)])
def test_folding_into_gemm(transposed: int, bias: tuple[int, ...] | None) -> None:
    weights = {"w": random(*((6, 4) if transposed else (4, 6))), **statistics(6)}
    if bias is not None:
        weights["c"] = random(*bias) if bias else np.array(0.7, np.float32)
    first = node("Gemm", "x w" + ("" if bias is None else " c"), "h", transB=transposed, alpha=0.5, beta=2.0)
    assert ops(rewritten(build(normalised(first), ["N", 4], weights), rules=["fold-batchnorm"])) == {
        "Gemm": 1
    }


def test_a_bias_per_row_is_not_folded() -> None:
    weights = {"w": random(4, 6), "c": random(3, 6), **statistics(6)}
    model = build(normalised(node("Gemm", "x w c", "h")), [3, 4], weights)
    assert "row" in rewritten(model, rules=["fold-batchnorm"]).left[0].why


def test_two_normalisations_in_a_row_fold_both() -> None:
    steps = [*normalised(node("Conv", "x w", "h"))[:1], node("BatchNormalization", "h g b m v", "k")]
    steps.append(node("BatchNormalization", "k g b m v", "y"))
    result = rewritten(
        build(steps, ["N", 4, 5, 5], {"w": random(6, 4, 1, 1), **statistics(6)}), rules=["fold-batchnorm"]
    )
    assert result.applied == {"fold-batchnorm": 2}
    assert ops(result) == {"Conv": 1}


def test_shared_weights_get_a_private_copy() -> None:
    steps = [
        node("Conv", "x w", "h"),
        node("BatchNormalization", "h g b m v", "n"),
        node("Conv", "x w", "k"),
        node("Add", "n k", "y"),
    ]
    result = rewritten(
        build(steps, ["N", 4, 5, 5], {"w": random(6, 4, 1, 1), **statistics(6)}), rules=["fold-batchnorm"]
    )
    assert ops(result) == {"Conv": 2, "Add": 1}
    first, second = (n for n in result.model.to_onnx().graph.node if n.op_type == "Conv")
    assert first.input[1] != second.input[1] == "w"


@pytest.mark.parametrize("outputs", [("y",), ("y", "h")])
def test_a_result_that_is_read_elsewhere_is_not_folded(outputs: tuple[str, ...]) -> None:
    steps = normalised(node("Conv", "x w", "h"))
    if len(outputs) == 1:
        steps[1].output[0] = "n"
        steps.append(node("Mul", "n h", "y"))
    model = build(steps, ["N", 4, 5, 5], {"w": random(6, 4, 1, 1), **statistics(6)}, outputs=outputs)
    result = rewritten(model, rules=["fold-batchnorm"])
    assert not result.applied
    assert "read elsewhere" in result.left[0].why
    assert not result.lacking  # asked for by name, not lacked
    result = rewritten(model, ["BatchNormalization"])
    assert result.applied == {"scale-batchnorm": 1}
    assert not result.left


@pytest.mark.parametrize("shape", [("N", 6), ("N", 6, 5), ("N", 6, 5, 4), ("N", 6, 3, 3, 3)])
@pytest.mark.parametrize("lacks", [(), ("Conv",)])
def test_a_normalisation_by_itself(shape: tuple[int | str, ...], lacks: tuple[str, ...]) -> None:
    model = build([node("BatchNormalization", "x g b m v", "y")], shape, statistics(6))
    result = rewritten(model, ["BatchNormalization", *lacks])
    assert ops(result) == ({"Mul": 1, "Add": 1} if lacks or len(shape) == 2 else {"Conv": 1})


@pytest.mark.parametrize("outputs", [("y",), ("y", "rm")])
def test_training_mode_is_refused(outputs: tuple[str, ...]) -> None:
    step = node("BatchNormalization", "x g b m v", "y rm rv", training_mode=1)
    result = rewritten(build([step], [2, 6, 4, 4], statistics(6), outputs=outputs), ["BatchNormalization"])
    assert "training" in result.left[0].why


def test_parameters_from_outside_are_refused() -> None:
    model = build([node("BatchNormalization", "x g b m v", "y")], [2, 6, 4, 4], statistics(6))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [6, 6, 1, 1]))
    model.graph.node.insert(0, node("Conv", "x w", "h"))
    model.graph.node[1].input[0] = "h"
    result = graphprune.rewrite(model, rules=["fold-batchnorm"])
    assert "run time" in result.left[0].why


def test_weights_in_constant_nodes_and_half_precision() -> None:
    weights = {"w": random(6, 4, 1, 1, dtype="float16"), **statistics(6, "float16")}
    constants = [node("Constant", "", n, value=numpy_helper.from_array(a)) for n, a in weights.items()]
    model = build([*constants, *normalised(node("Conv", "x w", "h"))], ["N", 4, 5, 5], dtype="float16")
    assert ops(rewritten(model, ["BatchNormalization"])) == {"Conv": 1}


def test_initializers_that_are_inputs_too() -> None:
    """IR 3 wants every initializer among the inputs."""
    weights = {"w": random(6, 4, 1, 1), **statistics(6)}
    model = build(normalised(node("Conv", "x w", "h")), [2, 4, 5, 5], weights, opset=8, ir_version=3)
    written = rewritten(model, ["BatchNormalization"]).model.to_onnx()
    assert {t.name for t in written.graph.initializer} == {i.name for i in written.graph.input} - {"x"}


# -- channel shuffle ----------------------------------------------------------------------------------


def shuffle(
    groups: int, channels: int, height: int, width: int
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    each = channels // groups
    steps = [
        node("Reshape", "x a", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t z", "y"),
    ]
    shapes = {"a": [0, groups, each, height, width], "z": [0, -1, height, width]}
    return steps, {k: np.array(v, np.int64) for k, v in shapes.items()}


@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.sampled_from(("N", 1, 3))
)
@settings(max_examples=30, deadline=None)
def test_channel_shuffles(groups: int, each: int, height: int, width: int, batch: int | str) -> None:
    steps, weights = shuffle(groups, groups * each, height, width)
    model = build(steps, [batch, groups * each, height, width], weights)
    result = rewritten(model, ["Transpose"], exact=True)
    if groups > 1 and each > 1:
        assert ops(result) == {"Gather": 1}
        assert not result.left
    else:  # moves nothing
        assert ops(result)["Transpose"] == 1


def test_a_shuffle_of_dynamic_size() -> None:
    """Sizes read from the tensor by Shape, with dynamic height and width."""
    steps = [
        node("Shape", "x", "s"),
        node("Slice", "s two four", "hw"),
        node("Concat", "head hw", "a", axis=0),
        node("Concat", "tail hw", "z", axis=0),
        *shuffle(2, 6, 1, 1)[0],
    ]
    numbers = {"two": [2], "four": [4], "head": [0, 2, 3], "tail": [0, 6]}
    model = build(steps, ["N", 6, "H", "W"], {k: np.array(v, np.int64) for k, v in numbers.items()})
    result = rewritten(model, ["Transpose"], exact=True, shape=[2, 6, 5, 7])
    assert ops(result) == {"Gather": 1}  # what computed the sizes is gone, too


def test_halves_of_a_shuffle() -> None:
    """ShuffleNet V2 as it is often written: the shuffle's two halves are read by two Gathers."""
    steps = [
        node("Reshape", "x a", "r"),
        node("Transpose", "r", "t", perm=[1, 0, 2]),
        node("Reshape", "t z", "h"),
        node("Gather", "h zero", "p", axis=0),
        node("Gather", "h one", "q", axis=0),
    ]
    numbers = {"a": [3, 2, 20], "z": [2, 1, 3, 4, 5], "zero": 0, "one": 1}
    weights = {k: np.array(v, np.int64) for k, v in numbers.items()}
    result = rewritten(build(steps, [1, 6, 4, 5], weights, outputs=("p", "q")), ["Transpose"], exact=True)
    assert ops(result) == {"Gather": 2}
    assert not result.left


def test_swapped_axes_are_no_shuffle() -> None:
    model = build([node("Transpose", "x", "y", perm=[0, 2, 3, 1])], [2, 6, 4, 4])
    result = rewritten(model, ["Transpose"], exact=True)
    assert "whole axes" in result.left[0].why
    steps, weights = shuffle(2, 6, 4, 4)
    model = build(steps, [2, 6, 4, 4], weights, outputs=("y", "t"))  # somebody reads the middle
    assert not rewritten(model, ["Transpose"], exact=True).applied


# -- the engine ---------------------------------------------------------------------------------------


def test_bodies_of_control_flow_are_left_and_reported() -> None:
    branches = []
    for op in ("HardSwish", "Relu"):
        out = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)
        branches.append(helper.make_graph([node(op, "x", f"{op}_out")], op, [], [out]))
    steps = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m zero", "c"),
        node("If", "c", "i", then_branch=branches[0], else_branch=branches[1]),
        node("HardSwish", "i", "y"),
    ]
    result = rewritten(build(steps, [2, 5], {"zero": np.array(0, np.float32)}), ["HardSwish"])
    assert result.applied == {"hard-swish": 1}
    assert [(e.node, e.op) for e in result.left] == [("HardSwish_HardSwish_out", "HardSwish")]
    assert "sub-graph" in result.left[0].why


def test_metadata_survives() -> None:
    model = build([node("HardSwish", "x", "y")], [2, 5])
    model.metadata_props.add(key="owner", value="somebody")
    model.graph.node[0].metadata_props.add(key="stack", value="line 7")
    written = rewritten(model, ["HardSwish"]).model.to_onnx()
    assert [(p.key, p.value) for p in written.metadata_props] == [("owner", "somebody")]
    assert all(
        [(p.key, p.value) for p in n.metadata_props] == [("stack", "line 7")] for n in written.graph.node
    )


def test_an_output_keeps_its_name_and_a_taken_name_is_not_used() -> None:
    steps = [node("Relu", "x", "HardSwish_y/Mul"), node("HardSwish", "HardSwish_y/Mul", "y")]
    written = rewritten(build(steps, [2, 5]), ["HardSwish"]).model.to_onnx()
    assert [o.name for o in written.graph.output] == ["y"]


def test_which_rules_run() -> None:
    model = build([node("HardSwish", "x", "h"), node("Mish", "h", "y")], [2, 5], opset=18)
    assert rewritten(model, ["HardSwish"]).applied == {"hard-swish": 1}
    assert rewritten(model, rules=["mish"]).applied == {"mish": 1}
    target = Target("test", lacks=("HardSwish",), rewrites=("mish",))
    assert graphprune.rewrite(model, target=target).applied == {"hard-swish": 1, "mish": 1}
    with pytest.raises(graphprune.OptionError, match="did you mean 'mish'"):
        graphprune.rewrite(model, rules=["mich"])
    with pytest.raises(graphprune.OptionError, match="--target"):
        graphprune.rewrite(model)
    with pytest.raises(ValueError, match="already"):
        rewrite_rule("mish", ["Mish"])(lambda node, context: None)


def test_a_wrong_rule_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))

    @rewrite_rule("wrong", replaces=["Elu"])
    def wrong(node: Any, context: Any) -> Any:
        return [context.op("LeakyRelu", node.inputs[0])]

    model = build([node("Elu", "x", "y")], [2, 5])
    with pytest.raises(graphprune.FidelityError, match="differs from the original"):
        graphprune.rewrite(model, rules=["wrong"])


# -- real networks --------------------------------------------------------------------------------------


ALL = Target("all", lacks=tuple(op for op in EVERYTHING if op != "Transpose"), rewrites=("channel-shuffle",))
SIZES = {"NVIDIA__attention_head": {"input": (100, 100, 100)}}


@pytest.mark.parametrize("path", [p for p in shared_models() if "candy" not in p.stem], ids=lambda p: p.stem)
def test_third_party_files_under_every_rule(path: Any) -> None:
    result = graphprune.rewrite(path, target=ALL, input_shapes=SIZES.get(path.stem))
    assert result.fidelity.holds
    assert not result.fidelity.vacuous
    remaining = {e.op for e in result.lacking}
    if "Kahsolt" in path.stem:  # of dynamic height and width
        assert result.applied["hard-swish"] >= 18
        assert remaining == {"GlobalAveragePool"}
    else:
        assert not remaining
    if "FastestDet" in path.stem:
        assert result.applied["channel-shuffle"] == 26
    if "xfeat_vga" not in path.stem:  # whose local functions the checker wants opsets for
        onnx.checker.check_model(result.model.to_onnx())


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_under_every_rule(seed: int) -> None:
    result = graphprune.rewrite(random_graphs.build(random_graphs.random_recipe(seed, 8)), target=ALL)
    onnx.checker.check_model(result.model.to_onnx())
    assert not result.lacking
    again = graphprune.rewrite(result.model, target=ALL)
    assert not again.applied


def test_mobile_networks_of_paddle_at_a_given_size() -> None:
    path = next((p for p in shared_models() if "ocr_mobile" in p.stem), None)
    if path is None:
        pytest.skip("no ../shared/models beside the repository")
    result = graphprune.rewrite(path, target=ALL, input_shapes={"x": (1, 3, 48, 192)})
    assert not result.left
    pruned = graphprune.prune(result.model.to_onnx(), sparsity=0.3)
    assert pruned.fidelity.holds


def test_the_real_shufflenet() -> None:
    result = graphprune.rewrite(
        light_model("shufflenet"), target=Target("test", lacks=("Transpose", "BatchNormalization"))
    )
    assert result.applied == {"fold-batchnorm": 49, "channel-shuffle": 16}
    assert not result.left
    pruned = graphprune.prune(result.model.to_onnx(), sparsity=0.3)
    assert pruned.fidelity.holds
    before = graphprune.analyze(light_model("shufflenet")).prunable_channels
    assert pruned.analysis.prunable_channels == before  # Gather ties no positions


def test_bisenet_for_the_chip_without_reduce_mean(tmp_path: Any) -> None:
    pytest.importorskip("torch")
    from sample_models.zoo import export

    path = export("bisenet_v2", tmp_path / "bisenet.onnx")
    result = graphprune.rewrite(path, target="npu-16x8")
    assert result.applied == {"global-pool": 1, "spread-context": 1}
    assert not result.left
    assert not ops(result)["ReduceMean"]
    pooled = Counter(
        n.op_type for n in onnx.load(export("bisenet_v2_pooled", tmp_path / "pooled.onnx")).graph.node
    )
    assert ops(result) == pooled  # the paper's form of the network, which was written by hand
    written = result.save(tmp_path / "npu.onnx")
    assert graphprune.prune(written, sparsity=0.3).fidelity.holds
