"""The Python API: sources and conversions, dtypes, external data, options, files written whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune


def small_model(dtype: int = TensorProto.FLOAT, batch: int | str = "n") -> onnx.ModelProto:
    """conv 3 -> 32, relu, conv 32 -> 24, global pool, gemm 24 -> 5; metadata, doc strings, dynamic batch."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        array = rng.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]) or 1)
        if dtype == TensorProto.BFLOAT16:
            import ml_dtypes

            return numpy_helper.from_array(array.astype(ml_dtypes.bfloat16), name)
        return numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(dtype)), name)

    nodes = [
        helper.make_node(
            "Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1], doc_string="kept"
        ),
        helper.make_node("Relu", ["c1"], ["r1"], name="act"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="second"),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", dtype, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", dtype, [batch, 5])],
        [
            weight("w1", 32, 3, 3, 3),
            weight("b1", 32),
            weight("w2", 24, 32, 3, 3),
            weight("w3", 5, 24),
            weight("b3", 5),
        ],
        value_info=[helper.make_tensor_value_info("r1", dtype, [batch, 32, 8, 8])],
    )
    opset = 22 if dtype == TensorProto.BFLOAT16 else 18  # the first in which Conv takes bfloat16
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    helper.set_model_props(model, {"author": "somebody"})
    return model


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_sizes_after_pruning_and_what_is_kept() -> None:
    result = graphprune.prune(small_model(), sparsity=0.5, multiple_of=1)
    proto = result.model.to_onnx()
    removed = result.plan.removed
    gone = {name: len(axes["0"]) for name, axes in removed.items() if name in ("w1", "w2")}
    assert gone["w1"] + gone["w2"] == 28  # half of 32 + 24
    found = weights(proto)
    assert found["w1"].shape == (32 - gone["w1"], 3, 3, 3)
    assert found["w2"].shape == (24 - gone["w2"], 32 - gone["w1"], 3, 3)
    assert found["w3"].shape == (5, 24 - gone["w2"])
    kept = np.setdiff1d(np.arange(32), removed["w1"]["0"])
    np.testing.assert_array_equal(found["w1"], weights(small_model())["w1"][kept])
    np.testing.assert_array_equal(found["b3"], weights(small_model())["b3"])
    assert [n.name for n in proto.graph.node] == ["first", "act", "second", "pool", "flat", "head"]
    assert proto.graph.node[0].doc_string == "kept"
    assert {p.key: p.value for p in proto.metadata_props}["author"] == "somebody"
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert proto.opset_import[0].version == 18
    recorded = proto.graph.value_info[0].type.tensor_type.shape.dim
    assert (recorded[0].dim_param, recorded[1].dim_value) == ("n", 32 - gone["w1"])
    assert result.plan.contracted == {"w2": [1], "w3": [1]}


def test_every_kind_of_source_gives_the_same_result(tmp_path: Path) -> None:
    proto = small_model()
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    sources = [path, str(path), proto, ir.from_proto(proto), gs.import_onnx(proto), graphprune.load(path)]
    plans = [graphprune.prune(s, sparsity=0.5).plan for s in sources]
    assert all(p.removed == plans[0].removed for p in plans)
    assert all(p.params == plans[0].params for p in plans)


def test_result_converts_to_each(tmp_path: Path) -> None:
    result = graphprune.prune(small_model(), sparsity=0.5)
    x = np.ones((2, 3, 8, 8), np.float32)
    surgeon = gs.export_onnx(result.model.to_graphsurgeon())
    outputs = [
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (result.model.to_onnx(), ir.to_proto(result.model.to_ir()), surgeon)
    ]
    for other in outputs[1:]:
        np.testing.assert_array_equal(outputs[0], other)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_other_float_types(dtype: int) -> None:
    result = graphprune.prune(small_model(dtype), sparsity=0.5)
    assert result.fidelity.holds
    assert not result.fidelity.vacuous
    assert {t.data_type for t in result.model.to_onnx().graph.initializer} == {dtype}


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_model(), path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    result = graphprune.prune(path, sparsity=0.5)
    out = result.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").exists()
    assert graphprune.verify(path, out).holds
    inline = graphprune.prune(small_model(), sparsity=0.5)
    for name, array in weights(inline.model.to_onnx()).items():
        np.testing.assert_array_equal(array, weights(onnx.load(out))[name])


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    onnx.save(small_model(), inner / "m.onnx", save_as_external_data=True, location="d.bin", size_threshold=0)
    (inner / "d.bin").rename(tmp_path / "d.bin")
    with pytest.raises(graphprune.ModelError, match=r"d\.bin"):
        graphprune.load(inner / "m.onnx")
    proto = onnx.load(inner / "m.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../d.bin"
    (inner / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(graphprune.ModelError):
        graphprune.load(inner / "m.onnx")


@pytest.mark.parametrize("kind", ["sparsity", "params", "macs"])
@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize("requested", [0.1, 0.37, 0.5, 0.8])
def test_budget_is_met_within_one_channel(kind: str, allocation: str, requested: float) -> None:
    """Counted on the written model, not by the cost model that chose."""
    before = small_model(batch=1)
    result = graphprune.prune(before, multiple_of=1, allocation=allocation, **{kind: requested})
    after = result.model.to_onnx()
    total, left = (sum(w.size for w in weights(m).values()) for m in (before, after))
    assert result.plan.params == {"before": total, "after": left}
    if kind == "sparsity":
        achieved = sum(len(result.plan.removed.get(w, {}).get("0", [])) for w in ("w1", "w2")) / 56
        one_channel = 1 / 56
    elif kind == "params":
        achieved = 1 - left / total
        one_channel = (9 * 24 + 28) / total
    else:
        achieved = 1 - result.plan.macs["after"] / result.plan.macs["before"]
        one_channel = (64 * 27 + 36 * 9 * 32) / result.plan.macs["before"]
    assert abs(achieved - requested) <= one_channel
    assert result.plan.budget["achieved"] == pytest.approx(achieved)


def test_macs_are_those_of_the_definition() -> None:
    analysis = graphprune.analyze(small_model(batch=1))
    assert analysis.cost.total_macs == 64 * 32 * 27 + 36 * 24 * 32 * 9 + 24 * 5


def test_uniform_allocation_takes_the_same_share_everywhere() -> None:
    result = graphprune.prune(small_model(), sparsity=0.5, allocation="uniform", multiple_of=1)
    assert len(result.plan.removed["w1"]["0"]) == 16
    assert len(result.plan.removed["w2"]["0"]) == 12


def test_alignment() -> None:
    """Automatic: kept counts are multiples of 8 in groups from 32 wide; below, free."""
    result = graphprune.prune(small_model(), sparsity=0.3)
    assert (32 - len(result.plan.removed.get("w1", {}).get("0", []))) % 8 == 0
    result = graphprune.prune(small_model(), sparsity=0.4, multiple_of=4)
    for name, width in (("w1", 32), ("w2", 24)):
        assert (width - len(result.plan.removed.get(name, {}).get("0", []))) % 4 == 0


def test_options_that_choose_layers() -> None:
    only = graphprune.prune(small_model(), sparsity=0.2, only=["sec*"], multiple_of=1).plan.removed
    assert "w2" in only
    assert "w1" not in only
    excluded = graphprune.prune(small_model(), sparsity=0.2, exclude=["w2"], multiple_of=1).plan.removed
    assert "w1" in excluded
    assert "b1" in excluded
    assert "0" not in excluded["w2"]
    ratio = graphprune.prune(small_model(), sparsity=0.5, ratios={"first": 0.25}, multiple_of=1).plan.removed
    assert len(ratio["w1"]["0"]) == 8
    assert len(ratio["w2"]["0"]) == 20
    fewest = graphprune.prune(small_model(), sparsity=0.6, min_channels=10, multiple_of=1).plan.removed
    assert 32 - len(fewest["w1"]["0"]) >= 10
    assert 24 - len(fewest["w2"]["0"]) >= 10
    with pytest.raises(graphprune.OptionError, match="nothing-like-it"):
        graphprune.prune(small_model(), sparsity=0.2, only=["nothing-like-it"])
    with pytest.raises(graphprune.BudgetError, match=r"at most 0\.6429"):
        graphprune.prune(small_model(), sparsity=0.9, min_channels=10, multiple_of=1)


def test_magnitude_removes_the_smallest() -> None:
    proto = small_model()
    stored = weights(proto)
    shrunk = [3, 7, 20]
    for tensor in proto.graph.initializer:
        if tensor.name == "w1":
            array = stored["w1"].copy()
            array[shrunk] *= 1e-3
            tensor.CopyFrom(numpy_helper.from_array(array, "w1"))
        if tensor.name == "w2":
            array = stored["w2"].copy()
            array[:, shrunk] *= 1e-3
            tensor.CopyFrom(numpy_helper.from_array(array, "w2"))
    result = graphprune.prune(proto, sparsity=3 / 56, allocation="global", multiple_of=1)
    assert result.plan.removed["w1"]["0"] == shrunk
    assert "0" not in result.plan.removed["w2"]


def test_random_is_seeded() -> None:
    first, same, other = (
        graphprune.prune(small_model(), sparsity=0.5, method="random", seed=s).plan.removed for s in (1, 1, 2)
    )
    assert first == same != other


def test_unknown_words_suggest() -> None:
    with pytest.raises(graphprune.OptionError, match="'magnitude'"):
        graphprune.prune(small_model(), sparsity=0.5, method="magnitud")
    with pytest.raises(graphprune.OptionError, match="BatchNormalization"):
        graphprune.prune(small_model(), sparsity=0.5, method="bn-scale")
    with pytest.raises(graphprune.OptionError, match="exactly one"):
        graphprune.prune(small_model(), sparsity=0.5, macs=0.5)


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = graphprune.prune(small_model(), sparsity=0.5)
    target = tmp_path / "out.onnx"
    result.save(target)
    before = target.read_bytes()
    with pytest.raises(graphprune.OptionError, match="--force"):
        result.save(target)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(graphprune.OptionError, match="No space left"):
        result.save(target, force=True)
    assert target.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "out.plan.json"]


def test_plan_of_another_original_is_refused(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "a.onnx")
    onnx.save(small_model(batch=1), tmp_path / "b.onnx")
    out = graphprune.prune(tmp_path / "a.onnx", sparsity=0.5).save(tmp_path / "out.onnx")
    assert graphprune.verify(tmp_path / "a.onnx", out).holds
    with pytest.raises(graphprune.PlanError, match="was not made from"):
        graphprune.verify(tmp_path / "b.onnx", out)
    plan = json.loads((tmp_path / "out.plan.json").read_text())
    plan["surprise"] = 1
    (tmp_path / "out.plan.json").write_text(json.dumps(plan))
    with pytest.raises(graphprune.PlanError, match="surprise"):
        graphprune.verify(tmp_path / "a.onnx", out)


def test_networkx_view() -> None:
    view = graphprune.analyze(small_model()).groups.networkx
    assert view.number_of_nodes() == 3
    assert {tuple(sorted(e)) for e in view.edges} == {(0, 1), (1, 2)}
    assert view.nodes[2]["reason"].startswith("the model's output")


def test_own_operator_rule() -> None:
    """Adding a rule touches one place, also from outside the package."""
    from graphprune.rules.elementwise import unary
    from graphprune.rules.registry import _RULES

    proto = small_model(batch=1)
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "MyRelu", "my.domain"
    proto.opset_import.append(helper.make_opsetid("my.domain", 1))
    for name in ("c1", "r1"):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, 1, [1, 32, 8, 8]))
    del proto.graph.value_info[0]
    unknown = graphprune.analyze(proto)
    assert "no rule for this operator" in unknown.groups[0].reason
    graphprune.rule("my.domain::MyRelu", settle=False)(unary)
    try:
        assert graphprune.analyze(proto).groups[0].prunable
    finally:
        del _RULES["my.domain::MyRelu"]


def test_two_recurrent_layers_whose_first_output_has_no_name() -> None:
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 4, name)

    nodes = [
        helper.make_node("LSTM", ["x", "w1", "r1"], ["", "h1"], hidden_size=12),
        helper.make_node("GRU", ["h1", "w2", "r2"], ["", "h2"], hidden_size=10),
        helper.make_node("MatMul", ["h2", "head"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [5, 2, 4])],
        [helper.make_tensor_value_info("y", 1, [1, 2, 3])],
        [
            *(weight("w1", 1, 48, 4), weight("r1", 1, 48, 12)),
            *(weight("w2", 1, 30, 12), weight("r2", 1, 30, 10), weight("head", 10, 3)),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    result = graphprune.prune(model, sparsity=0.5, multiple_of=1)
    assert result.fidelity.holds
    assert not result.fidelity.vacuous
    sizes = [n.attribute[0].i for n in result.model.to_onnx().graph.node[:2]]
    assert sizes == [6, 5]


def test_a_computed_size_that_two_nodes_read_is_mended_once() -> None:
    """half = channels // 2, at run time; after pruning the halves need not be equal."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 3, name)

    def ints(name: str, values: object) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Shape", ["c"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["channels"]),
        helper.make_node("Div", ["channels", "two"], ["half"]),
        helper.make_node("Slice", ["c", "zero", "half", "one"], ["first"]),
        helper.make_node("Slice", ["c", "half", "end", "one"], ["second"]),
        helper.make_node("Conv", ["first", "wa"], ["a"]),
        helper.make_node("Conv", ["second", "wb"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    tensors = [weight("w", 16, 3, 1, 1), weight("wa", 4, 8, 1, 1), weight("wb", 4, 8, 1, 1)]
    tensors += [ints("one", [1]), ints("two", [2]), ints("zero", [0]), ints("end", [2**31])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("y", 1, ["n", 4, 4, 4])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    uneven = 0
    for seed in range(4):
        result = graphprune.prune(model, sparsity=0.4, method="random", seed=seed, multiple_of=1)
        assert result.fidelity.holds
        gone = np.array(result.plan.removed["w"]["0"])
        uneven += (gone < 8).sum() != (gone >= 8).sum()
        names = [n.name for n in result.model.to_onnx().graph.node if n.name]
        assert len(names) == len(set(names))
    assert uneven, "no seed left uneven halves: the test tests nothing"
