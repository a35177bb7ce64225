"""The proof itself: right surgery passes, wrong surgery is caught, and nothing passes for no reason.

Every pruned model here is made by hand with numpy, so that the expected verdict does not depend on the
package's own surgery.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import graphprune
from graphprune.errors import ModelError, PlanError
from graphprune.frontends.loading import load_model
from graphprune.measures import is_vacuous, relative_difference
from graphprune.plan import Plan, plan_path
from graphprune.proof import Fidelity, verify_models
from graphprune.reference import build_reference

Weights = dict[str, np.ndarray]


def proto(text: str, weights: Weights, opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """A model from ONNX's textual syntax and its initializers."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    model = onnx.parser.parse_model(f"{header} net {text}")
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    return model


def loaded(model: onnx.ModelProto) -> ir.Model:
    return load_model(model)[0]


def plan(**fields: Any) -> Plan:
    return Plan(source_sha256="", **fields)


def check(text: str, full: Weights, small: Weights, fields: dict[str, Any], **options: Any) -> Fidelity:
    return verify_models(loaded(proto(text, full)), loaded(proto(text, small)), plan(**fields), **options)


def array(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return np.asarray(tensor.numpy())


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def without(array: np.ndarray, *cuts: tuple[int, list[int]]) -> np.ndarray:
    for axis, indices in cuts:
        array = np.delete(array, indices, axis)
    return np.ascontiguousarray(array)


# -- a chain whose removed channels are not zero: BatchNorm shifts them, sigmoid(0) is 0.5 -----------------

CHAIN = """(float[n, 3, 8, 8] x) => (float[n, 5] y) {
    a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w1, b1)
    b = BatchNormalization(a, scale, shift, mean, var)
    c = Sigmoid(b)
    d = Conv<kernel_shape = [1, 1]>(c, w2)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    y = Gemm<transB = 1>(f, w3)
}"""
GONE = [1, 4]
CHAIN_PLAN: dict[str, Any] = {
    "removed": {n: {"0": GONE} for n in ("w1", "b1", "scale", "shift", "mean", "var")} | {"w2": {"1": GONE}},
    "contracted": {"w2": [1]},
}


def chain() -> Weights:
    return {
        "w1": normal(6, 3, 3, 3), "b1": normal(6, seed=1), "scale": normal(6, seed=2) + 2,
        "shift": normal(6, seed=3) + 1, "mean": normal(6, seed=4), "var": normal(6, seed=5) ** 2 + 1,
        "w2": normal(4, 6, 1, 1), "w3": normal(5, 4),
    }  # fmt: skip


def cut_chain(weights: Weights, gone: list[int] = GONE) -> Weights:
    small = {n: without(a, (0, gone)) for n, a in weights.items() if n not in ("w2", "w3")}
    return small | {"w2": without(weights["w2"], (1, gone)), "w3": weights["w3"]}


def test_right_surgery_holds() -> None:
    full = chain()
    found = check(CHAIN, full, cut_chain(full), CHAIN_PLAN)
    assert found.holds
    assert found.max_rel_diff < 1e-5
    assert found.exact
    assert not found.vacuous
    assert found.compared == ["y"]
    assert found.runs == 3
    assert found.tolerance == 1e-4
    assert found.distance_to_original > 0.01


def test_distance_is_measured_against_the_original() -> None:
    full = chain()
    small = cut_chain(full)
    found = check(CHAIN.replace("float[n,", "float[1,"), full, small, CHAIN_PLAN, runs=2, seed=3)
    # the same draws, evaluated by onnx's own evaluator
    from graphprune.feeds import InputSpec, draw

    expected = 0.0
    for number, style in enumerate(("normal", "unit")):
        feed = draw([InputSpec("x", (1, 3, 8, 8), "float32", 2)], style, [3, number])
        a, b = (ReferenceEvaluator(proto(CHAIN, w)).run(None, feed)[0] for w in (small, full))
        expected = max(expected, float(np.abs(a - b).max() / np.abs(b).max()))
    assert found.distance_to_original == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["w1", "b1", "scale", "shift", "mean", "var", "w2"])
def test_a_wrong_index_in_any_tensor_is_caught(name: str) -> None:
    full = chain()
    small = cut_chain(full)
    small[name] = cut_chain(full, [1, 3])[name]
    found = check(CHAIN, full, small, CHAIN_PLAN)
    assert not found.holds
    assert found.max_rel_diff > 1e-3
    assert "'y'" in found.message
    if name == "w2":  # what it makes is the first value of an unpruned shape
        assert "the first value to differ is 'd'" in found.message


def test_zeroing_the_producer_instead_would_leak() -> None:
    """The reason for zeroing consumers: a zeroed filter still sends sigmoid(shift) on."""
    full = chain()
    leaking = CHAIN_PLAN | {"contracted": {"w1": [0], "b1": [0]}}
    found = check(CHAIN, full, cut_chain(full), leaking)
    assert not found.holds


def test_reference_zeroes_consumers_and_keeps_producers() -> None:
    full = chain()
    original, pruned = loaded(proto(CHAIN, full)), loaded(proto(CHAIN, cut_chain(full)))
    before = [ir.to_proto(m).SerializeToString(deterministic=True) for m in (original, pruned)]
    reference = build_reference(original, pruned, plan(**CHAIN_PLAN))
    assert not array(reference, "w2")[:, GONE].any()
    np.testing.assert_array_equal(without(array(reference, "w2"), (1, GONE)), without(full["w2"], (1, GONE)))
    for name in ("w1", "b1", "shift", "w3"):
        np.testing.assert_array_equal(array(reference, name), full[name])
    after = [ir.to_proto(m).SerializeToString(deterministic=True) for m in (original, pruned)]
    assert before == after


def test_trained_weights_are_taken_from_the_pruned_file() -> None:
    full = chain()
    small = {n: a + np.float32(0.25) * normal(*a.shape, seed=9) ** 2 for n, a in cut_chain(full).items()}
    trained = check(CHAIN, full, small, CHAIN_PLAN | {"weights": "trained"})
    assert trained.holds
    assert trained.max_rel_diff < 1e-5
    assert not check(CHAIN, full, small, CHAIN_PLAN).holds
    reference = build_reference(
        loaded(proto(CHAIN, full)), loaded(proto(CHAIN, small)), plan(**CHAIN_PLAN, weights="trained")
    )
    expected = full["w1"].copy()
    expected[[0, 2, 3, 5]] = small["w1"]
    np.testing.assert_array_equal(array(reference, "w1"), expected)
    np.testing.assert_array_equal(array(reference, "w3"), small["w3"])


def test_zeroed_blocks_are_masks_but_other_values_must_be_the_originals() -> None:
    full = chain()
    kept = np.arange(full["w3"].size).reshape(full["w3"].shape) % 3 > 0
    zeroed = full | {"w3": full["w3"] * kept}
    blocks = {
        "structure": "block",
        "blocks": {"w3": {"shape": [1, 1], "kept": np.flatnonzero(kept).tolist()}},
    }
    found = check(CHAIN, full, zeroed, blocks)
    assert found.holds
    assert found.patterned == 1
    changed = zeroed | {"w3": zeroed["w3"] * np.float32(1.1)}
    assert not check(CHAIN, full, changed, blocks).holds
    assert not check(CHAIN, full, zeroed, {}).holds  # whole channels: nothing may be zeroed
    leaked = check(CHAIN, full, full, blocks)
    assert not leaked.holds
    assert "'w3' has 1 non-zero weights in block (0, 0), which the plan drops" in leaked.message


# -- groups -----------------------------------------------------------------------------------------------

GROUPED = """(float[2, 3, 4, 4] x) => (float[2, 4, 4, 4] y) {
    a = Conv<kernel_shape = [1, 1]>(x, w1)
    b = Conv<kernel_shape = [1, 1], group = 2>(a, w2)
    c = Relu(b)
    y = Conv<kernel_shape = [1, 1]>(c, w3)
}"""


def grouped_plan(lists: list[list[int]]) -> dict[str, Any]:
    return {
        "removed": {"w1": {"0": [1, 6]}, "w2": {"0": [0, 5], "1": lists}, "w3": {"1": [0, 5]}},
        "contracted": {"w2": [1], "w3": [1]},
    }


def grouped() -> tuple[Weights, Weights]:
    """8 -> 8 channels in two groups; each group loses another input and another output."""
    full = {"w1": normal(8, 3, 1, 1), "w2": normal(8, 4, 1, 1), "w3": normal(4, 8, 1, 1)}
    first, second = full["w2"][:4], full["w2"][4:]
    w2 = np.concatenate([without(first, (0, [0]), (1, [1])), without(second, (0, [1]), (1, [2]))])
    return full, {"w1": without(full["w1"], (0, [1, 6])), "w2": w2, "w3": without(full["w3"], (1, [0, 5]))}


@pytest.mark.parametrize("weights", ["original", "trained"])
def test_each_group_loses_its_own_inputs(weights: str) -> None:
    full, small = grouped()
    fields = grouped_plan([[1], [2]]) | {"weights": weights}
    found = check(GROUPED, full, small, fields)
    assert found.holds
    assert found.max_rel_diff < 1e-5
    reference = build_reference(loaded(proto(GROUPED, full)), loaded(proto(GROUPED, small)), plan(**fields))
    expected = full["w2"].copy()
    expected[:4, 1] = 0
    expected[4:, 2] = 0
    np.testing.assert_array_equal(array(reference, "w2"), expected)


def test_groups_mixed_up_are_caught() -> None:
    full, small = grouped()
    assert not check(GROUPED, full, small, grouped_plan([[2], [1]])).holds


# -- two activations contract -----------------------------------------------------------------------------

ATTENTION = """(float[2, 5, 6] x) => (float[2, 5, 6] y) {
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    kt = Transpose<perm = [0, 2, 1]>(k)
    s = MatMul(q, kt)
    p = Softmax<axis = -1>(s)
    y = MatMul(p, x)
}"""


def test_gate_on_one_operand_of_an_attention_product() -> None:
    full = {"wq": normal(6, 4), "wk": normal(6, 4, seed=1)}
    small = {n: without(a, (1, [1, 3])) for n, a in full.items()}
    removed = {"removed": {"wq": {"1": [1, 3]}, "wk": {"1": [1, 3]}}}
    found = check(ATTENTION, full, small, removed | {"gates": {"q": {"2": [1, 3]}}})
    assert found.holds
    assert found.max_rel_diff < 1e-5
    assert not check(ATTENTION, full, small, removed).holds
    assert not check(ATTENTION, full, small, removed | {"gates": {"q": {"2": [0, 3]}}}).holds


def test_gate_also_reaches_a_graph_output_and_keeps_its_name() -> None:
    text = "(float[2, 4] x) => (float[2, 4] a, float[2, 4] y) { a = Relu(x) \n y = Neg(a) }"
    model = loaded(proto(text, {}))
    reference = build_reference(model, model, plan(gates={"a": {"1": [2]}}))
    feed = {"x": np.arange(1, 9, dtype=np.float32).reshape(2, 4)}
    a, y = ReferenceEvaluator(ir.to_proto(reference)).run(["a", "y"], feed)
    expected = feed["x"] * np.array([1, 1, 0, 1], np.float32)
    np.testing.assert_array_equal(a, expected)
    np.testing.assert_array_equal(y, -expected)


# -- operators that mix channels --------------------------------------------------------------------------

NORM = """(float[2, 5, 6] x) => (float[2, 5, 3] y) {
    a = MatMul(x, w1)
    n = LayerNormalization<axis = -1>(a, scale, bias)
    r = Relu(n)
    y = MatMul(r, w2)
}"""
DECOMPOSED = """(float[2, 5, 6] x) => (float[2, 5, 3] y) <float eps = {0.001}, float two = {2.0}> {
    a = MatMul(x, w1)
    mean = ReduceMean<axes = [-1]>(a)
    d = Sub(a, mean)
    sq = Pow(d, two)
    var = ReduceMean<axes = [-1]>(sq)
    v = Add(var, eps)
    sd = Sqrt(v)
    z = Div(d, sd)
    zs = Mul(z, scale)
    n = Add(zs, bias)
    y = MatMul(n, w2)
}"""
QUANTISED = """(float[2, 5, 6] x) => (float[2, 5, 3] y) {
    a = MatMul(x, w1)
    q, s, zero = DynamicQuantizeLinear(a)
    b = DequantizeLinear(q, s, zero)
    y = MatMul(b, w2)
}"""
NORM_GONE = [0, 3, 7]


def norm_weights() -> Weights:
    # removed channels are large, so that statistics change when they go
    scale = np.where(np.isin(np.arange(8), NORM_GONE), 10, 1).astype(np.float32)
    return {
        "w1": normal(6, 8) * scale, "scale": normal(8, seed=1), "bias": normal(8, seed=2), "w2": normal(8, 3)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "nodes"),
    [(NORM, ["n"]), (DECOMPOSED, ["mean", "var"]), (QUANTISED, ["q"])],
    ids=["LayerNormalization", "ReduceMean", "DynamicQuantizeLinear"],
)
def test_statistics_over_the_kept_channels_only(text: str, nodes: list[str]) -> None:
    full = norm_weights()
    small = {n: without(a, (1 if n == "w1" else 0, NORM_GONE)) for n, a in full.items()}
    if text is QUANTISED:
        full, small = ({n: w[n] for n in ("w1", "w2")} for w in (full, small))
    removed = {n: {"1" if n == "w1" else "0": NORM_GONE} for n in full}
    fields = {"removed": removed, "contracted": {"w2": [0]}}
    found = check(text, full, small, fields | {"kept_only": {n: {"2": NORM_GONE} for n in nodes}})
    assert found.holds
    assert not found.exact
    assert found.nodes == nodes
    assert found.max_rel_diff < 1e-5
    assert not check(text, full, small, fields).holds


def test_two_axes_of_one_operator() -> None:
    text = "(float[2, 3, 4] x) => (float[2, 3, 4] y) { y = LayerNormalization<axis = 1>(x, s) }"
    scale = normal(3, 4)
    model = loaded(proto(text, {"s": scale}))
    reference = build_reference(model, model, plan(kept_only={"y": {"1": [1], "2": [0, 2]}}))
    x = normal(2, 3, 4, seed=5)
    (y,) = ReferenceEvaluator(ir.to_proto(reference)).run(None, {"x": x})
    part = x[:, [0, 2]][:, :, [1, 3]].astype(np.float64)
    mean, var = part.mean((1, 2), keepdims=True), part.var((1, 2), keepdims=True)
    expected = np.zeros_like(x)
    expected[np.ix_([0, 1], [0, 2], [1, 3])] = (part - mean) / np.sqrt(var + 1e-5) * scale[[0, 2]][:, [1, 3]]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_kept_only_before_opset_11() -> None:
    text = """(float[2, 6] x) => (float[2, 3] y) {
        a = MatMul(x, w1) \n n = LpNormalization<axis = 1>(a) \n y = MatMul(n, w2)
    }"""
    full = {"w1": norm_weights()["w1"], "w2": normal(8, 3)}
    small = {"w1": without(full["w1"], (1, NORM_GONE)), "w2": without(full["w2"], (0, NORM_GONE))}
    fields = plan(
        removed={"w1": {"1": NORM_GONE}, "w2": {"0": NORM_GONE}},
        contracted={"w2": [0]},
        kept_only={"n": {"1": NORM_GONE}},
    )
    models = [loaded(proto(text, w, opset=9, ir_version=4)) for w in (full, small)]
    assert verify_models(*models, fields).holds


# -- what must not pass for a proof -----------------------------------------------------------------------


def test_an_output_that_ignores_the_input_is_vacuous() -> None:
    text = "(float[1, 4] x) => (float[1, 4] y) { a = Relu(x) \n z = Mul(a, zero) \n y = Add(z, b) }"
    weights = {"zero": np.zeros(1, np.float32), "b": normal(4)}
    found = check(text, weights, weights, {})
    assert found.vacuous
    assert "nothing was proved" in found.message


def test_a_network_that_was_cut_through_is_called_so() -> None:
    text = "(float[1, 16] x) => (float[1, 16] y) { a = MatMul(x, w1) \n r = Relu(a) \n y = MatMul(r, w2) }"
    weights = {"w1": normal(16, 16), "w2": normal(16, 16, seed=1)}
    weights["w1"][:, 4:] *= 1e-3
    weights["w1"][4:] *= 1e-3
    weights["w2"][:4] *= 1e-3  # reads what is left of w1
    cut = graphprune.prune(proto(text, weights), structure="block", block="4x4x1x1", sparsity=0.9)
    assert cut.fidelity.vacuous
    assert "any more, as the original's do" in cut.fidelity.message


def test_an_output_that_is_never_finite_is_vacuous() -> None:
    text = "(float[1, 4] x) => (float[1, 4] y) { y = Div(x, zero) }"
    weights = {"zero": np.zeros(1, np.float32)}
    assert check(text, weights, weights, {}).vacuous


def test_pruned_model_that_does_not_run_is_a_failure_with_a_json_report() -> None:
    full = chain()
    small = cut_chain(full) | {"w1": full["w1"]}
    with pytest.raises(PlanError, match="'w1' has shape"):
        check(CHAIN, full, small, CHAIN_PLAN)
    broken = loaded(proto(CHAIN.replace("Sigmoid(b)", "Sigmoid(b, b)"), cut_chain(full)))
    found = verify_models(loaded(proto(CHAIN, full)), broken, plan(**CHAIN_PLAN))
    assert not found.holds
    assert "cannot run the pruned model" in found.message
    report = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert report["max_rel_diff"] is None


def test_original_that_onnxruntime_does_not_know_is_refused() -> None:
    text = "(float[1, 4] x) => (float[1, 4] y) { y = Sin(x) }"
    model = proto(text, {})
    model.graph.node[0].op_type, model.graph.node[0].domain = "Mystery", "somewhere"
    model.opset_import.append(helper.make_opsetid("somewhere", 1))
    with pytest.raises(ModelError, match=r"onnxruntime cannot run the original: .*Mystery"):
        verify_models(loaded(model), loaded(model), plan())


def test_sizes_that_do_not_fit_are_named_and_can_be_given() -> None:
    text = "(float[n, 3, h, w] x) => (float[n, 2] y) { f = Flatten(x) \n y = MatMul(f, m) }"
    weights = {"m": normal(3 * 4 * 4, 2)}
    with pytest.raises(ModelError, match="--input-shape"):
        check(text, weights, weights, {})
    assert check(text, weights, weights, {}, input_shapes={"x": (2, 3, 4, 4)}).holds


# -- behind operators that jump ---------------------------------------------------------------------------

TOPK = """(float[1, 6] x) => (float[1, 2] best, int64[1, 2] where, float[2, 3] y) <int64[1] k = {2}> {
    h = MatMul(x, w0)
    a = MatMul(h, w1)
    best, where = TopK(a, k)
    flat = Squeeze(where)
    rows = Gather<axis = 0>(table, flat)
    y = MatMul(rows, w2)
}"""


def topk() -> tuple[Weights, Weights, dict[str, Any]]:
    full = {"w0": normal(6, 5), "w1": normal(5, 8), "table": normal(8, 4), "w2": normal(4, 3)}
    full["w1"][:] = full["w1"][:, :1]  # all scores are equal: rounding alone decides
    small = full | {"w0": without(full["w0"], (1, [2])), "w1": without(full["w1"], (0, [2]))}
    return full, small, {"removed": {"w0": {"1": [2]}, "w1": {"0": [2]}}, "contracted": {"w1": [0]}}


def test_rounding_before_topk_is_no_error() -> None:
    full, small, fields = topk()
    small["w1"] = small["w1"] * (1 + np.linspace(-1e-6, 1e-6, 8, dtype=np.float32))
    found = check(TOPK, full, small, fields)
    assert found.holds
    assert "a" in found.compared
    assert not found.vacuous


def test_an_error_before_topk_is_caught() -> None:
    full, small, fields = topk()
    small["w1"] = small["w1"] * (1 + np.linspace(-0.01, 0.01, 8, dtype=np.float32))
    assert not check(TOPK, full, small, fields).holds


@pytest.mark.parametrize("name", ["table", "w2"])
def test_an_error_behind_topk_is_caught(name: str) -> None:
    full, small, fields = topk()
    small["w1"] = small["w1"] * (1 + np.linspace(-1e-6, 1e-6, 8, dtype=np.float32))
    small[name] = small[name][::-1].copy()
    found = check(TOPK, full, small, fields)
    assert not found.holds
    assert found.max_rel_diff > 0.01


def test_a_jump_on_pruned_channels_stays_inside() -> None:
    """Floor reads another shape in the pruned model, so its result cannot be fed in."""
    text = TOPK.replace("a = MatMul(h, w1)", "hf = Floor(h) \n a = MatMul(hf, w1)")
    full, small, fields = topk()
    small["w1"] = small["w1"] * (1 + np.linspace(-1e-6, 1e-6, 8, dtype=np.float32))
    assert check(text, full, small, fields).holds
    small["w2"] = small["w2"][::-1].copy()
    assert not check(text, full, small, fields).holds


def test_another_k_is_caught() -> None:
    text = TOPK.replace("float[1, 2] best, int64[1, 2] where, float[2, 3] y", "best, where, y")
    full, small, fields = topk()
    models = [loaded(proto(t, w)) for t, w in ((text, full), (text.replace("{2}", "{3}"), small))]
    assert not verify_models(*models, plan(**fields)).holds


def test_another_threshold_is_caught() -> None:
    text = "(float[4, 6] x) => (float[4, 6] y) { a = Neg(x) \n m = Greater(a, t) \n y = Cast<to = 1>(m) }"
    full = {"t": np.zeros(1, np.float32)}
    assert check(text, full, full, {}).holds
    assert not check(text, full, {"t": np.full(1, 0.5, np.float32)}, {}).holds


def test_integer_outputs_are_compared_exactly() -> None:
    text = "(int64[1, 4] x) => (int64[1, 4] y) { y = Add(x, b) }"
    full = {"b": np.arange(4)}
    assert check(text, full, full, {}).holds
    found = check(text, full, {"b": full["b"] + 1}, {})
    assert math.isinf(found.max_rel_diff)
    assert not found.holds


# -- where numbers hide errors, or make them up -----------------------------------------------------------


def test_small_scores_beside_large_boxes_are_compared_by_themselves() -> None:
    text = """(float[1, 6] x) => (float[1, 8] y) {
        boxes = MatMul(x, w1) \n scores = MatMul(x, w2) \n y = Concat<axis = 1>(boxes, scores)
    }"""
    full = {"w1": 1e6 * normal(6, 4), "w2": 1e-2 * normal(6, 4, seed=1)}
    found = check(text, full, full | {"w2": full["w2"][:, ::-1].copy()}, {})
    assert not found.holds
    assert "'scores'" in found.message


def test_a_saturated_sigmoid_is_judged_by_its_logits() -> None:
    text = "(float[1, 6] x) => (float[1, 4] y) { a = MatMul(x, w) \n z = Add(a, b) \n y = Sigmoid(z) }"
    full = {"w": 1e-3 * normal(6, 4), "b": np.full(4, -16, np.float32)}
    nudged = full | {"b": np.nextafter(full["b"], np.float32(0))}
    outputs = [ReferenceEvaluator(proto(text, w)).run(None, {"x": normal(1, 6)})[0] for w in (full, nudged)]
    assert np.abs(outputs[0]).max() < 1e-6
    found = check(text, full, nudged, {})
    assert found.holds
    assert found.compared == ["y", "z"]
    wrong = full | {"b": full["b"] + np.float32(0.1)}  # 1e-8 in the output, 6e-3 in the logits
    assert not check(text, full, wrong, {}).holds


def test_inputs_on_which_rounding_explodes_are_left_out() -> None:
    # sin(a * a) jumps about for inputs in [0, 255] and is harmless around 0; the pruned model computes the
    # same function and only sums in another order
    text = "(float[1, 64] x) => (float[1, 4] y) { %s a = MatMul(%s, w) \n b = Mul(a, a) \n y = Sin(b) }"
    weight = np.float32(0.3) * normal(64, 4)
    order = np.random.default_rng(0).permutation(64)
    original = loaded(proto(text % ("", "x"), {"w": weight}))
    shuffled = {"w": weight[order], "order": order}
    pruned = loaded(proto(text % ("g = Gather<axis = 1>(x, order) \n", "g"), shuffled))
    found = verify_models(original, pruned, plan())
    assert found.holds
    assert found.runs == 2  # N(0, 1) and [0, 1]
    wrong = loaded(proto(text % ("", "x"), {"w": weight * np.float32(1.01)}))
    assert not verify_models(original, wrong, plan()).holds


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([np.nan, 2.0], [np.nan, 2.0], 0.0),
        ([np.nan, 2.0], [1.0, 2.0], math.inf),
        ([np.inf, 2.0], [-np.inf, 2.0], math.inf),
        ([1.0], [1.0, 2.0], math.inf),
        ([], [], 0.0),
    ],
)
def test_relative_difference(found: list[float], wanted: list[float], expected: float) -> None:
    assert relative_difference(np.array(found, np.float32), np.array(wanted, np.float32)) == expected


def test_relative_difference_of_integers() -> None:
    assert math.isinf(relative_difference(np.array([1]), np.array([2])))
    assert relative_difference(np.array([7], np.uint8), np.array([8], np.uint8)) == pytest.approx(1 / 255)
    assert is_vacuous([{"y": np.array([1])}, {"y": np.array([1])}], ["y"])
    assert not is_vacuous([{"y": np.array([1])}, {"y": np.array([2])}], ["y"])


# -- how weights may be stored ----------------------------------------------------------------------------


def test_half_precision() -> None:
    full = {n: a.astype(np.float16) for n, a in chain().items()}
    text = CHAIN.replace("float[", "float16[")
    found = check(text, full, cut_chain(full), CHAIN_PLAN)
    assert found.tolerance == 2e-2
    assert found.holds
    reference = build_reference(
        loaded(proto(text, full)), loaded(proto(text, cut_chain(full))), plan(**CHAIN_PLAN)
    )
    assert array(reference, "w2").dtype == np.float16
    wrong = cut_chain(full) | {"w2": cut_chain(full, [0, 3])["w2"]}
    assert not check(text, full, wrong, CHAIN_PLAN).holds


def test_bfloat16_is_proved_in_float32() -> None:
    full = {n: a.astype(ml_dtypes.bfloat16) for n, a in chain().items()}
    text = CHAIN.replace("float[", "bfloat16[")
    found = check(text, full, cut_chain(full), CHAIN_PLAN)
    assert found.holds
    assert found.max_rel_diff < 1e-5
    reference = build_reference(
        loaded(proto(text, full)), loaded(proto(text, cut_chain(full))), plan(**CHAIN_PLAN)
    )
    tensor = reference.graph.initializers["w2"].const_value
    assert tensor is not None
    assert tensor.dtype == ir.DataType.BFLOAT16


def in_constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes + others)
    return model


@pytest.mark.parametrize("weights", ["original", "trained"])
def test_weights_in_constant_nodes(weights: str) -> None:
    full = chain()
    small = cut_chain(full)
    models = [loaded(in_constant_nodes(proto(CHAIN, w))) for w in (full, small)]
    before = ir.to_proto(models[0]).SerializeToString(deterministic=True)
    assert verify_models(*models, plan(**CHAIN_PLAN, weights=weights)).holds
    assert ir.to_proto(models[0]).SerializeToString(deterministic=True) == before
    small["w2"] = cut_chain(full, [0, 4])["w2"]
    wrong = loaded(in_constant_nodes(proto(CHAIN, small)))
    assert not verify_models(models[0], wrong, plan(**CHAIN_PLAN)).holds


def test_initializers_that_are_graph_inputs_too() -> None:
    models = []
    for weights in (chain(), cut_chain(chain())):
        model = proto(CHAIN, weights, opset=11, ir_version=3)
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
        )
        models.append(loaded(model))
    found = verify_models(*models, plan(**CHAIN_PLAN))
    assert found.holds
    assert not found.vacuous


def test_a_weight_that_the_original_computes() -> None:
    text = """(float[2, 6] x) => (float[2, 3] y) {
        %s a = MatMul(x, w) \n r = Relu(a) \n y = MatMul(r, w2)
    }"""
    full = {"v": normal(6, 8), "g": normal(8, seed=1), "w2": normal(8, 3)}
    small = {"w": without(full["v"] * full["g"], (1, [0, 5])), "w2": without(full["w2"], (0, [0, 5]))}
    models = [loaded(proto(text % "w = Mul(v, g) \n", full)), loaded(proto(text % "", small))]
    fields = {"removed": {"w": {"1": [0, 5]}, "w2": {"0": [0, 5]}}, "contracted": {"w2": [0]}}
    for weights in ("original", "trained"):
        found = verify_models(*models, plan(**fields, weights=weights))
        assert found.holds
        assert found.max_rel_diff < 1e-5
    wrong = loaded(proto(text % "", small | {"w": without(full["v"] * full["g"], (1, [0, 4]))}))
    assert not verify_models(models[0], wrong, plan(**fields)).holds


@pytest.mark.parametrize("size", ["shape", "dynamic"])
def test_constant_of_shape_with_a_smaller_shape(size: str) -> None:
    """A filled tensor that is contracted: from a literal shape, or from the input's own size."""
    source = "rows = Identity(shape)" if size == "shape" else "s = Shape(x) \n rows = Concat<axis = 0>(t, s)"
    text = f"""(float[4] x) => (float[3] y) {{
        {source} \n w = ConstantOfShape<value = float[1] {{0.5}}>(rows)
        a = Mul(b, x0) \n h = Add(a, first) \n hx = MatMul(h, w) \n hs = Mul(hx, x)
        y = MatMul(hs, out)
    }}"""
    text = text.replace("x0", "x1").replace(
        "a = Mul(b, x1)", "x1 = ReduceSum<keepdims = 0>(x) \n a = Mul(b, x1)"
    )
    full: Weights = {"first": normal(5), "b": normal(5, seed=1), "out": normal(4, 3)}
    small = {n: a if n == "out" else without(a, (0, [2])) for n, a in full.items()}
    if size == "shape":
        full["shape"], small["shape"] = np.array([5, 4]), np.array([4, 4])
    else:
        full["t"], small["t"] = np.array([5]), np.array([4])
    fields = {"removed": {n: {"0": [2]} for n in ("first", "b", "w")}, "contracted": {"w": [0]}}
    found = check(text, full, small, fields)
    assert found.holds
    assert found.max_rel_diff < 1e-5
    assert not check(text, full, small, fields | {"contracted": {}}).holds


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_quantised_weight_is_zero_at_its_zero_point(per_channel: bool) -> None:
    text = """(float[2, 6] x) => (float[2, 3] y) {
        a = MatMul(x, w1) \n w = DequantizeLinear<axis = 1>(q, s, z) \n y = MatMul(a, w)
    }"""
    q = np.random.default_rng(0).integers(0, 255, (8, 3)).astype(np.uint8)
    z, scale = np.array([100, 7, 128], np.uint8), np.array([0.1, 0.2, 0.3], np.float32)
    if not per_channel:
        z, scale = z[0], scale[0]
    full = {"w1": normal(6, 8), "q": q, "s": scale, "z": z}
    small = full | {"w1": without(full["w1"], (1, [0, 5])), "q": without(q, (0, [0, 5]))}
    fields = {"removed": {"w1": {"1": [0, 5]}, "q": {"0": [0, 5]}}, "contracted": {"q": [0]}}
    found = check(text, full, small, fields)
    assert found.holds
    assert found.tolerance == 1e-4  # only weights are quantised
    reference = build_reference(loaded(proto(text, full)), loaded(proto(text, small)), plan(**fields))
    np.testing.assert_array_equal(array(reference, "q")[[0, 5]], np.broadcast_to(z, (2, 3)))


def test_a_shared_weight_of_which_only_one_copy_is_cut() -> None:
    text = """(float[2, 6] x) => (float[2, 6] y, float[2, 6] u) {
        a = MatMul(x, w) \n b = Relu(a) \n y = MatMul(b, w2) \n u = MatMul(x, %s)
    }"""
    full = {"w": normal(6, 6), "w2": normal(6, 6, seed=1)}
    gone = [1, 2]
    small = {"w": without(full["w"], (1, gone)), "w2": without(full["w2"], (0, gone)), "w_copy": full["w"]}
    models = [loaded(proto(text % "w", full)), loaded(proto(text % "w_copy", small))]
    fields = {"removed": {"w": {"1": gone}, "w2": {"0": gone}}, "contracted": {"w": [1], "w2": [0]}}
    assert verify_models(*models, plan(**fields, renamed={"w_copy": "w"})).holds
    wrong = loaded(proto(text % "w_copy", small | {"w_copy": full["w"][:, ::-1].copy()}))
    assert not verify_models(models[0], wrong, plan(**fields, renamed={"w_copy": "w"})).holds


def test_embedding_indices_stay_inside_their_table() -> None:
    text = """(int64[n, 7] ids, int64[n, 7] mask) => (float[n, 7, 3] y) {
        e = Gather(table, ids) \n m = Cast<to = 1>(mask) \n u = Unsqueeze(m, ax)
        g = Mul(e, u) \n y = MatMul(g, w)
    }"""
    full = {"table": normal(3, 8), "ax": np.array([2]), "w": normal(8, 3)}
    small = full | {"table": without(full["table"], (1, [4])), "w": without(full["w"], (0, [4]))}
    fields = {"removed": {"table": {"1": [4]}, "w": {"0": [4]}}, "contracted": {"w": [0]}}
    found = check(text, full, small, fields)
    assert found.holds
    assert not found.vacuous
    assert not check(text, full, small | {"table": full["table"][:, 1:].copy()}, fields).holds


def test_sequence_outputs_are_left_out() -> None:
    text = (
        "(float[1, 4] x) => (float[1, 4] y, seq(float[1, 4]) z) { y = Mul(x, b) \n z = SequenceConstruct(y) }"
    )
    full = {"b": normal(4)}
    found = check(text, full, full, {})
    assert found.holds
    assert found.compared == ["y"]
    assert not check(text, full, {"b": full["b"] * 2}, {}).holds


def test_a_batch_that_the_pruned_model_can_no_longer_take_is_a_failure() -> None:
    text = "(float[n, 2, 4] x) => (float[n, 8] y) { y = Reshape(x, s) }"
    assert check(text, {"s": np.array([0, 8])}, {"s": np.array([0, 8])}, {}).holds
    assert not check(text, {"s": np.array([0, 8])}, {"s": np.array([1, 8])}, {}).holds


# -- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    original, pruned = tmp_path / "net.onnx", tmp_path / "small.onnx"
    onnx.save(proto(CHAIN, chain()), original)
    onnx.save(proto(CHAIN, cut_chain(chain())), pruned)
    made = Plan(source_sha256=hashlib.sha256(original.read_bytes()).hexdigest(), **CHAIN_PLAN)
    plan_path(pruned).write_text(made.to_json(), encoding="utf-8")
    return original, pruned


def test_files_with_the_plan_beside_them(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert graphprune.load(files[0]).sha256() == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert graphprune.verify(*files).holds
    moved = tmp_path / "elsewhere.json"
    plan_path(files[1]).rename(moved)
    assert graphprune.verify(*files, moved).holds


def test_plan_of_another_original_is_refused(files: tuple[Path, Path]) -> None:
    other = chain()
    other["w3"] = other["w3"] + 1
    onnx.save(proto(CHAIN, other), files[0])
    with pytest.raises(PlanError, match="was not made from"):
        graphprune.verify(*files)


def test_missing_plan_is_refused(files: tuple[Path, Path]) -> None:
    plan_path(files[1]).unlink()
    with pytest.raises(PlanError, match="no such plan"):
        graphprune.verify(*files)


@pytest.mark.parametrize(
    "fields",
    [
        {"removed": {"nothing": {"0": [1]}}},
        {"removed": {"w1": {"7": [1]}}},
        {"removed": {"w1": {"0": [99]}}},
        {"gates": {"nothing": {"0": [1]}}},
        {"kept_only": {"nothing": {"0": [1]}}},
    ],
)
def test_plan_that_names_what_is_not_there_is_refused(fields: dict[str, Any]) -> None:
    full = chain()
    with pytest.raises(PlanError, match="wrong model"):
        check(CHAIN, full, cut_chain(full), fields)


@pytest.mark.parametrize("in_memory", [True, False])
def test_external_data(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr("graphprune.running.IN_MEMORY_BYTES", 0)
    target = tmp_path / "external" / "net.onnx"
    target.parent.mkdir()
    onnx.save(
        proto(CHAIN, chain()), target, save_as_external_data=True, size_threshold=0, location="net.data"
    )
    made = Plan(source_sha256=graphprune.load(target).sha256(), **CHAIN_PLAN)
    plan_path(files[1]).write_text(made.to_json(), encoding="utf-8")
    found = graphprune.verify(target, files[1])
    assert found.holds
    assert found.max_rel_diff < 1e-5
    wrong = cut_chain(chain()) | {"w2": cut_chain(chain(), [0, 4])["w2"]}
    onnx.save(proto(CHAIN, wrong), files[1])
    assert not graphprune.verify(target, files[1]).holds
