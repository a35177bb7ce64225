"""Sensitivity: every figure is what pruning that group alone, by prune itself, and running it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Run, small_network
from onnx import TensorProto, helper, numpy_helper
from test_readme import grouped_network

import graphprune
from graphprune.errors import BudgetError, DataError, OptionError

Feed = dict[str, np.ndarray]


def feeds(count: int = 24, size: int = 8) -> list[Feed]:
    """Two batches of noise."""
    x = np.random.default_rng(5).standard_normal((count, 3, size, size)).astype(np.float32)
    return [{"x": x[: count // 2]}, {"x": x[count // 2 :]}]


def run_model(model: onnx.ModelProto, batches: list[Feed]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in batches]).astype(np.float64)


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Mean KL in nats of softmax(p) from softmax(q)."""

    def log_softmax(x: np.ndarray) -> np.ndarray:
        return x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True)

    a, b = log_softmax(p), log_softmax(q)
    return float((np.exp(a) * (a - b)).sum(1).mean())


@pytest.mark.parametrize("method", ["magnitude", "lamp", "wanda"])
def test_a_value_is_the_distance_of_the_model_that_prune_makes(method: str) -> None:
    model, batches = small_network(), feeds()
    found = graphprune.analyze(model, sensitivity=True, data=batches, method=method, ratios=[0.25, 0.5])
    assert found.sensitivity is not None
    assert (found.sensitivity.method, found.sensitivity.metric) == (method, "output distance")
    assert found.sensitivity.samples == 24
    assert found.sensitivity.unpruned == 0
    dense = run_model(model, batches)
    assert {g.name for g in found.sensitivity.groups} == {"conv1", "conv2"}
    for group in found.sensitivity.groups:
        for share, value in zip(group.removed, group.values, strict=True):
            alone = graphprune.prune(
                model,
                only=[group.name],
                ratios={group.name: share},
                sparsity=share * {"conv1": 16, "conv2": 24}[group.name] / 40,
                method=method,
                multiple_of=1,
                compensate="none",
                data=batches if method == "wanda" else None,
            )
            assert value == pytest.approx(
                divergence(dense, run_model(alone.model.to_onnx(), batches)), rel=1e-4
            )
    worst = [sum(v for v in g.values if v is not None) for g in found.sensitivity.groups]
    assert worst == sorted(worst, reverse=True)


def test_accuracy_is_counted_on_the_labels(tmp_path: Path) -> None:
    model, batches = small_network(), feeds(40)
    x = np.concatenate([f["x"] for f in batches])
    labels = run_model(model, batches).argmax(1)
    labels[:10] = (labels[:10] + 1) % 5  # the model is wrong on a quarter
    np.savez(tmp_path / "labelled.npz", x=x, labels=labels)
    found = graphprune.analyze(
        model, sensitivity=True, eval_data=str(tmp_path / "labelled.npz"), ratios=[0.5]
    )
    result = found.sensitivity
    assert result is not None
    assert (result.metric, result.unpruned, result.samples, result.inputs) == ("accuracy", 0.75, 40, "data")
    by_name = {g.name: g for g in result.groups}
    alone = graphprune.prune(model, only=["conv1"], sparsity=0.2, multiple_of=1).model.to_onnx()
    assert by_name["conv1"].removed == (0.5,)
    assert by_name["conv1"].values == (float((run_model(alone, [{"x": x}]).argmax(1) == labels).mean()),)
    values = [g.values[0] for g in result.groups if g.values[0] is not None]
    assert values == sorted(values)  # most is lost first


def test_without_data_it_is_noise_and_says_so() -> None:
    found = graphprune.analyze(small_network(), sensitivity=True, samples=8, ratios=[0.5])
    again = graphprune.analyze(small_network(), sensitivity=True, samples=8, ratios=[0.5])
    assert found.sensitivity is not None
    assert found.sensitivity == again.sensitivity
    assert (found.sensitivity.inputs, found.sensitivity.samples) == ("noise", 8)
    assert any("random noise" in note for note in found.notes)
    assert not any("random noise" in note for note in graphprune.analyze(small_network()).notes)


def test_groups_bound_by_a_constraint_go_together_and_are_named() -> None:
    found = graphprune.analyze(grouped_network(), sensitivity=True, ratios=[0.3], samples=4)
    assert found.sensitivity is not None
    every = [i for g in found.sensitivity.groups for i in (g.group, *g.bound)]
    assert sorted(every) == [g.id for g in found.groups if g.prunable]
    assert all(0 < share < 1 for g in found.sensitivity.groups for share in g.removed)


def test_sizes_are_those_of_the_data() -> None:
    model = small_network()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    found = graphprune.analyze(model, sensitivity=True, data=feeds(4, size=12), ratios=[0.5])
    assert found.graph.inputs[0].shape == (1, 3, 12, 12)
    assert found.sensitivity is not None
    assert found.sensitivity.samples == 4


def test_a_fixed_batch_is_kept() -> None:
    model = small_network()
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    dim.ClearField("dim_param")
    dim.dim_value = 6
    found = graphprune.analyze(model, sensitivity=True, ratios=[0.5], samples=10)
    assert found.sensitivity is not None
    assert found.sensitivity.samples == 12


def overflowing() -> onnx.ModelProto:
    """Half of whose channels keep a logarithm from being that of 0."""
    one = np.ones((4, 3, 1, 1), np.float32)
    one[0] = 2
    weights = [
        numpy_helper.from_array(one, "w"),
        numpy_helper.from_array(np.full((1, 4, 1, 1), 1.0, np.float32), "v"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Conv", ["a", "v"], ["b"], "sum"),
        helper.make_node("Constant", [], ["least"], value_float=14.9),
        helper.make_node("Sub", ["b", "least"], ["c"]),
        helper.make_node("Log", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "overflowing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 1])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_is_not_finite_is_null_and_the_worst() -> None:
    ones = [{"x": np.ones((1, 3, 1, 1), np.float32)}]
    found = graphprune.analyze(overflowing(), sensitivity=True, data=ones, method="magnitude", ratios=[0.25])
    assert found.sensitivity is not None
    assert found.sensitivity.groups[0].values == (None,)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["sensitivity"]["groups"][0]["values"] == [
        None
    ]


def test_progress_counts_every_run() -> None:
    told: list[tuple[str, int, int]] = []
    graphprune.analyze(small_network(), sensitivity=True, samples=4, progress=lambda *step: told.append(step))
    assert told == [("sensitivity", i, 6) for i in range(1, 7)]


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        ({"ratios": [0.5, 1.0]}, OptionError, "between 0 and 1"),
        ({"ratios": []}, OptionError, "between 0 and 1"),
        ({"samples": 0}, OptionError, "from 1"),
        ({"method": "magnitud"}, OptionError, "did you mean 'magnitude'"),
        ({"method": "wanda"}, OptionError, "give --data"),
        ({"structure": "block"}, OptionError, "--structure block"),
        ({"data": [{"z": np.zeros((1, 3, 8, 8))}]}, DataError, "'x'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        graphprune.analyze(small_network(), sensitivity=True, **words)


def test_a_model_without_prunable_channels_is_refused() -> None:
    model = small_network(head="Unknown")
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(graphprune.GraphpruneError):
        graphprune.analyze(model, sensitivity=True, samples=2)  # onnxruntime does not know the operator
    nothing = small_network()
    del nothing.graph.node[1:]
    del nothing.graph.initializer[2:]
    nothing.graph.output[0].CopyFrom(helper.make_tensor_value_info("a", TensorProto.FLOAT, None))
    with pytest.raises(BudgetError, match="nothing in this model can be pruned"):
        graphprune.analyze(nothing, sensitivity=True, samples=2)


def test_outputs_without_distance_need_labels() -> None:
    model = small_network()
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["class"], "argmax", axis=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("class", TensorProto.INT64, None))
    with pytest.raises(OptionError, match="--eval-data"):
        graphprune.analyze(model, sensitivity=True, samples=2)


def test_command_line(run: Run, model_file: Path) -> None:
    np.savez(model_file.with_name("images.npz"), x=feeds()[0]["x"])
    arguments = ("analyze", model_file, "--sensitivity", "--ratios", "0.25,0.5")
    code, out, err = run(*arguments, "--data", model_file.with_name("images.npz"))
    assert code == 0
    title = "Sensitivity: output distance after each group alone lost channels (wanda; 12 samples of data"
    assert title in " ".join(out.split())  # it may take two lines
    assert "sensitivity 4/4" in err
    code, out, err = run(*arguments, "--quiet", "--json", "-", "--samples", 4)
    assert code == 0
    assert err == ""
    found = json.loads(out)["sensitivity"]
    assert set(found) == {"ratios", "metric", "unpruned", "method", "inputs", "samples", "groups"}
    assert found["ratios"] == [0.25, 0.5]
    assert found["groups"][0]["values"][1] > 0


def test_command_line_refuses_flags_that_do_nothing(run: Run, model_file: Path) -> None:
    code, out, err = run("analyze", model_file, "--data", "images.npz")
    assert (code, out) == (2, "")
    assert err == "graphprune: --data goes with --sensitivity: give it too\n"
