"""compare: every figure against numpy and onnxruntime; what does not compare is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Run, small_network
from onnx import TensorProto, helper, numpy_helper

import graphprune
from graphprune.errors import DataError, ModelError, OptionError


def noise(count: int, *, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def outputs_of(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with other names at its ends."""
    found = onnx.ModelProto.FromString(model.SerializeToString())
    for value, name in ((found.graph.input[0], "pixels"), (found.graph.output[0], "scores")):
        old, value.name = value.name, name
        for node in found.graph.node:
            for names in (node.input, node.output):
                names[:] = [name if n == old else n for n in names]
    return found


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in float16."""
    found = onnx.ModelProto.FromString(model.SerializeToString())
    for weight in found.graph.initializer:
        weight.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name)
        )
    for value in (*found.graph.input, *found.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return found


def balanced(model: onnx.ModelProto, x: np.ndarray) -> onnx.ModelProto:
    """The same with another bias, so that it names every class now and then."""
    bias = next(w for w in model.graph.initializer if w.name == "fc.bias")
    changed = numpy_helper.to_array(bias) - outputs_of(model, x).mean(0)
    bias.CopyFrom(numpy_helper.from_array(changed, bias.name))
    return model


def nearby(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with every weight a little different."""
    rng = np.random.default_rng(0)
    found = onnx.ModelProto.FromString(model.SerializeToString())
    for weight in found.graph.initializer:
        array = numpy_helper.to_array(weight)
        changed = array + 0.1 * rng.standard_normal(array.shape).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    return found


def test_figures_are_those_of_numpy() -> None:
    x = noise(100)
    first = balanced(small_network(), x)
    second = nearby(first)
    found = graphprune.compare(first, second, data=[{"x": x[:70]}, {"x": x[70:]}]).to_dict()
    a, b = outputs_of(first, x).astype(np.float64), outputs_of(second, x).astype(np.float64)
    (got,) = found["outputs"]
    assert got["values"] == 500
    assert got["not_finite"] == 0
    expected = {
        "max_abs": np.abs(a - b).max(),
        "mean_abs": np.abs(a - b).mean(),
        "max_rel": np.abs(a - b).max() / np.abs(a).max(),
        "mean_rel": np.abs(a - b).mean() / np.abs(a).mean(),
        "cosine": (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b),
        "top1_agreement": (a.argmax(1) == b.argmax(1)).mean(),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-4), name
    assert 0 < expected["top1_agreement"] < 1
    assert (found["inputs"], found["samples"], found["metric"], found["latency"]) == ("data", 100, None, None)


def test_a_model_equals_itself_and_noise_is_seeded() -> None:
    same = graphprune.compare(small_network(), small_network()).to_dict()
    (got,) = same["outputs"]
    assert (got["max_abs"], got["mean_rel"], got["top1_agreement"]) == (0, 0, 1)
    assert got["cosine"] == pytest.approx(1)
    assert (same["inputs"], same["samples"]) == ("noise", 256)
    assert any("random noise" in note for note in same["notes"])
    pairs = [graphprune.compare(small_network(), small_network(1), seed=seed).to_dict() for seed in (0, 0, 1)]
    assert pairs[0] == pairs[1] != pairs[2]


def test_counts_bytes_and_latency_of_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(small_network(), first)
    graphprune.prune(first, sparsity=0.5, multiple_of=1).save(second)
    found = graphprune.compare(first, second, samples=8).to_dict()
    plan = json.loads((tmp_path / "b.plan.json").read_text())
    assert found["params"] == {"first": plan["params"]["before"], "second": plan["params"]["after"]}
    assert found["macs"] == {"first": plan["macs"]["before"], "second": plan["macs"]["after"]}
    assert found["bytes"] == {"first": first.stat().st_size, "second": second.stat().st_size}
    assert found["latency"]["turns"] >= 20
    assert found["latency"]["first"]["median_ms"] > 0
    assert found["latency"]["ratio"]["low"] <= found["latency"]["ratio"]["value"]


def test_bytes_count_weights_in_files_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(small_network(), path, save_as_external_data=True, location="a.data", size_threshold=0)
    found = graphprune.compare(path, path, latency=False, samples=2).to_dict()
    assert found["bytes"]["first"] == path.stat().st_size + (tmp_path / "a.data").stat().st_size


@pytest.mark.parametrize("swapped", [False, True])
def test_other_names_are_matched_by_position(swapped: bool, tmp_path: Path) -> None:
    models = [small_network(), renamed(small_network())]
    labels = outputs_of(models[0], noise(30)).argmax(1)
    np.savez(tmp_path / "labelled.npz", x=noise(30), labels=labels)
    np.savez(tmp_path / "renamed.npz", pixels=noise(30), labels=labels)
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for model, path in zip(models, paths, strict=True):
        onnx.save(model, path)
    if swapped:
        paths.reverse()
    data = str(tmp_path / ("renamed.npz" if swapped else "labelled.npz"))
    found = graphprune.compare(*paths, eval_data=data).to_dict()
    (got,) = found["outputs"]
    assert {got["first"], got["second"]} == {"y", "scores"}
    assert got["max_abs"] == 0
    assert found["metric"] == {"name": "accuracy", "first": 1.0, "second": 1.0, "samples": 30}
    assert found["samples"] == 30


def test_accuracy_of_both_is_counted_on_the_labels(tmp_path: Path) -> None:
    x = noise(40)
    labels = outputs_of(small_network(0), x).argmax(1)
    labels[:10] = (labels[:10] + 1) % 5
    np.savez(tmp_path / "labelled.npz", x=x, labels=labels)
    found = graphprune.compare(small_network(0), small_network(1), eval_data=str(tmp_path / "labelled.npz"))
    wrong = outputs_of(small_network(1), x).argmax(1)
    assert found.measured.accuracy == (0.75, float((wrong == labels).mean()))


def test_another_precision_of_the_same_model_compares() -> None:
    found = graphprune.compare(small_network(), half(small_network()), data=[{"x": noise(16)}]).to_dict()
    (got,) = found["outputs"]
    assert 0 < got["max_rel"] < 0.02
    assert got["cosine"] > 0.999


def test_a_fixed_batch_of_either_is_kept() -> None:
    fixed = small_network()
    dim = fixed.graph.input[0].type.tensor_type.shape.dim[0]
    dim.ClearField("dim_param")
    dim.dim_value = 4
    for pair in ((fixed, small_network()), (small_network(), fixed)):
        found = graphprune.compare(*pair, samples=10).to_dict()
        assert found["samples"] == 12
        assert found["outputs"][0]["max_abs"] == pytest.approx(0, abs=1e-4)


def logarithm(shift: float) -> onnx.ModelProto:
    """log(x + shift), in which negative sums are NaN."""
    weight = numpy_helper.from_array(np.array([shift], np.float32), "shift")
    nodes = [helper.make_node("Add", ["x", "shift"], ["s"]), helper.make_node("Log", ["s"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1]) for n in "xy"]
    graph = helper.make_graph(nodes, "logarithm", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    x = np.array([[-2.0], [1.0], [3.0]], np.float32)
    found = graphprune.compare(logarithm(0), logarithm(1), data=[{"x": x}]).to_dict()
    (got,) = found["outputs"]
    assert (got["values"], got["not_finite"], got["top1_agreement"]) == (3, 1, None)
    assert got["max_abs"] == pytest.approx(np.log(2), rel=1e-6)
    nothing = graphprune.compare(logarithm(0), logarithm(0), data=[{"x": x[:1]}]).to_dict()["outputs"][0]
    assert [nothing[k] for k in ("max_abs", "mean_abs", "max_rel", "mean_rel", "cosine")] == [None] * 5
    json.dumps(found, allow_nan=False)


def other_input() -> onnx.ModelProto:
    model = small_network()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((16, 4, 3, 3), np.float32), "conv1.weight")
    )
    return model


def two_outputs() -> onnx.ModelProto:
    model = small_network()
    model.graph.output.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, None))
    return model


def other_classes() -> onnx.ModelProto:
    model = small_network()
    for i, shape in ((4, (6, 24)), (5, (6,))):
        name = model.graph.initializer[i].name
        model.graph.initializer[i].CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    return model


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (other_input, "input 'x' of .* is float32 .x3x8x8 and input 'x' of .* float32 .x4x8x8"),
        (two_outputs, r"has 1 output \(y\) and .* 2 \(y, e\)"),
        (other_classes, r"output 'y' of .* has sizes \[2, 5\] and 'y' of .* \[2, 6\]"),
    ],
)
def test_models_that_do_not_compare_are_refused(build: object, words: str) -> None:
    assert callable(build)
    with pytest.raises(OptionError, match=words):
        graphprune.compare(small_network(), build(), samples=2)


def test_what_onnxruntime_does_not_run_and_wrong_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="onnxruntime cannot load"):
        graphprune.compare(small_network(head="Unknown"), small_network(head="Unknown"), samples=2)
    with pytest.raises(OptionError, match="from 1"):
        graphprune.compare(small_network(), small_network(), samples=0)
    np.savez(tmp_path / "images.npz", x=noise(4))
    with pytest.raises(DataError, match="no labels"):
        graphprune.compare(small_network(), small_network(), eval_data=str(tmp_path / "images.npz"))


def test_an_open_axis_that_takes_one_size_alone_is_compared_at_that() -> None:
    shape = numpy_helper.from_array(np.array([1, 4], np.int64), "shape")
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", n]) for name, n in (("x", 4), ("y", 2))
    ]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], [shape, weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = graphprune.compare(model, model).to_dict()
    assert (found["samples"], found["outputs"][0]["max_abs"]) == (1, 0)
    with pytest.raises(ModelError, match="cannot run"):
        graphprune.compare(model, model, data=[{"x": np.ones((2, 4), np.float32)}])


def test_command_line(run: Run, model_file: Path) -> None:
    other, page = model_file.with_name("b.onnx"), model_file.with_name("c.html")
    onnx.save(small_network(1), other)
    code, out, err = run("compare", model_file, other, "--samples", 6, "--html", page, "--no-latency")
    assert code == 0
    for word in ("model.onnx and b.onnx", "parameters", "Outputs, on 6 samples of random noise", "written"):
        assert word in out
    assert "random noise" in err
    text = page.read_text(encoding="utf-8")
    assert "model.onnx and b.onnx" in text
    assert "http://" not in text
    assert "https://" not in text
    assert len(text) < 60_000  # without the chart library
    code, out, err = run("compare", model_file, other, "-q", "--json", "-", "--samples", 6, "--no-latency")
    assert (code, err) == (0, "")
    assert json.loads(out)["outputs"][0]["values"] == 30
    before = page.read_bytes()
    code, out, err = run("compare", model_file, other, "--html", page)
    assert (code, out, page.read_bytes()) == (2, "", before)
    assert "--force" in err
