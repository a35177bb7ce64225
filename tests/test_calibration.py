"""Pruning with inputs and without training: the mathematics against independent computations, then whole models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphprune
from graphprune.calibrated import prune_calibrated
from graphprune.calibration.collect import batched, collect
from graphprune.calibration.criteria import all_data_criteria
from graphprune.calibration.distances import output_distance
from graphprune.calibration.effort import effort_for, samples_for
from graphprune.calibration.fitting import Rows, fit_statistics, fit_weights
from graphprune.calibration.moments import Moments, damping, kept_columns, solve_within
from graphprune.calibration.order import Reader, greedy_order
from graphprune.calibration.pairs import Pair, what_follows
from graphprune.calibration.rate_distortion import allocate
from graphprune.calibration.statistics import Statistics, ridge_for
from graphprune.calibration.views import View, views
from graphprune.choosing import PruneOptions, requested_budget
from graphprune.errors import OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.pruning import analyze

ROOT = Path(__file__).resolve().parents[1]
RESNET = ROOT / "sample_models" / "resnet20_cifar10.onnx"
EVAL = ROOT / "sample_models" / "cifar10_eval.npz"
RNG = np.random.default_rng


def onnx_model(nodes: list, weights: dict[str, np.ndarray], inputs: Sequence[int], rank: int | None = None):
    """A model of one input ``x`` and one output ``y``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *inputs[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model, feed: dict[str, np.ndarray], outputs: list[str] | None = None) -> list[np.ndarray]:
    proto = model if not isinstance(model, ir.Model) else ir.to_proto(model)
    return ort.InferenceSession(proto.SerializeToString()).run(outputs, feed)


CONVS = {
    "plain": ({"pads": [1, 1, 1, 1]}, (6, 4, 3, 3), 8, 1),
    "stride": ({"strides": [2, 2], "pads": [0, 1, 1, 0]}, (6, 4, 3, 2), 9, 1),
    "dilated": ({"dilations": [2, 1], "pads": [2, 0, 2, 0]}, (6, 4, 3, 3), 8, 1),
    "grouped": ({"group": 2, "pads": [1, 1, 1, 1]}, (6, 2, 3, 3), 8, 2),
    "depthwise": ({"group": 4}, (4, 1, 3, 3), 8, 4),
    "same_upper": ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (6, 4, 3, 3), 7, 1),
    "same_lower": ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (6, 4, 3, 3), 8, 1),
}


@pytest.mark.parametrize("name", CONVS)
def test_a_convolution_is_a_product_of_rows_and_columns(name: str) -> None:
    attributes, shape, size, groups = CONVS[name]
    rng = RNG(0)
    w, b = rng.normal(size=shape), rng.normal(size=shape[0])
    x = rng.normal(size=(3, 4, size, size)).astype(np.float32)
    model = onnx_model(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)], {"w": w, "b": b}, x.shape
    )
    graph = build_graph(ir.from_proto(model), {"x": x.shape})
    (view,) = views(graph)
    (y,) = run(model, {"x": x})
    places = view.positions(y.shape, 7, RNG(1))
    rows, wanted = view.rows(x, y.shape, places), view.outputs(y, places)
    assert rows.shape == (3 * len(places), groups, view.columns)
    got = np.einsum("ngc,gco->ngo", rows, view.matrix(w)) + b.reshape(groups, -1)
    assert np.allclose(got, wanted, atol=1e-5)
    assert np.array_equal(view.tensor(view.matrix(w), w.shape), w)
    assert view.shift is not None
    assert view.shift.value.name == "b"


def linear(shift: str = "Add", transposed: bool = False) -> tuple[object, View, np.ndarray, np.ndarray]:
    """x [n, 5, 7] times w [7, 4] plus b, perhaps in a Gemm, or without a bias; returns model, view, w, b."""
    rng = RNG(2)
    w, b = rng.normal(size=(7, 4)), rng.normal(size=4)
    if shift == "Gemm":
        stored = w.T if transposed else w
        nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=int(transposed))]
        model = onnx_model(nodes, {"w": stored, "b": b}, (6, 7))
        sizes = (6, 7)
    else:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["z" if shift else "y"])]
        nodes += [helper.make_node("Add", ["z", "b"], ["y"])] if shift else []
        weights = {"w": w, "b": b} if shift else {"w": w}
        model, sizes = onnx_model(nodes, weights, (6, 5, 7)), (6, 5, 7)
    (view,) = views(build_graph(ir.from_proto(model), {"x": sizes}))
    return model, view, w.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize(
    ("shift", "transposed"), [("Add", False), ("Gemm", False), ("Gemm", True), ("", False)]
)
def test_a_refit_is_ridge_regression(shift: str, transposed: bool) -> None:
    """Against numpy's lstsq on explicit matrices, with rows added for the ridge: 1e-6."""
    _, view, w, b = linear(shift, transposed)
    rng = RNG(3)
    x = rng.normal(size=(50, 1, 7)) @ rng.normal(size=(7, 7)) + 2
    y = rng.normal(size=(50, 4)) + x[:, 0] @ w
    ridge = 0.1
    pair = Pair(view, view, np.arange(4))
    found = fit_weights(pair, Rows([x[:30], x[30:]], [y[:30], y[30:]]), ridge, 1)
    if shift:
        centred, target = x[:, 0] - x[:, 0].mean(0), y - y.mean(0)
    else:
        centred, target = x[:, 0], y
    damp = ridge * 10 * 7 / 50 * np.mean(np.square(centred).mean(0))
    rows = np.vstack([centred, np.sqrt(50 * damp) * np.eye(7)])
    wanted = np.linalg.lstsq(rows, np.vstack([target, np.sqrt(50 * damp) * w]), rcond=None)[0]
    got = found["w"].T if transposed else found["w"]
    assert np.abs(got - wanted).max() < 1e-6
    if shift:
        # an Add's bias takes the shift beside what was there; the targets here are those of the product alone
        offset = y.mean(0) - x[:, 0].mean(0) @ wanted
        assert np.allclose(found["b"], offset if shift == "Gemm" else b + offset, atol=1e-5)
    else:
        assert set(found) == {"w"}


def test_a_refit_with_a_batch_norm_behind_moves_its_bias() -> None:
    rng = RNG(4)
    stored = {
        "w": rng.normal(size=(5, 3, 1, 1)), "scale": rng.normal(size=5), "beta": rng.normal(size=5),
        "mean": rng.normal(size=5), "var": rng.random(5) + 0.5,
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["z"]),
        helper.make_node("BatchNormalization", ["z", "scale", "beta", "mean", "var"], ["y"]),
    ]
    model = onnx_model(nodes, stored, (4, 3, 6, 6))
    (view,) = views(build_graph(ir.from_proto(model), {"x": (4, 3, 6, 6)}))
    x = rng.normal(size=(4, 3, 6, 6)).astype(np.float32)
    places = np.arange(36)
    rows = view.rows(x, (4, 5, 6, 6), places)
    target = rng.normal(size=(144, 5))  # of the convolution, as if the original had another one
    new = fit_weights(Pair(view, view, np.arange(5)), Rows([rows], [target]), 1e-9, 1)
    changed = onnx_model(nodes, {**stored, **new}, (4, 3, 6, 6))
    (y,) = run(changed, {"x": x})
    slope = stored["scale"] / np.sqrt(stored["var"] + 1e-5)
    wanted = (target - stored["mean"]) * slope + stored["beta"]
    got = y.transpose(0, 2, 3, 1).reshape(-1, 5)
    assert np.allclose(got.mean(0), wanted.mean(0), atol=1e-4)
    design = np.column_stack([rows[:, 0], np.ones(144)])
    best = design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    assert np.allclose(got, best, atol=1e-3)


def test_statistics_are_estimated_again() -> None:
    """After ``bias``, a BatchNormalization's output has the mean and spread that it had."""
    rng = RNG(5)
    stored = {
        "w": rng.normal(size=(5, 3, 1, 1)), "scale": rng.normal(size=5), "beta": rng.normal(size=5),
        "mean": rng.normal(size=5), "var": rng.random(5) + 0.5,
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["z"]),
        helper.make_node("BatchNormalization", ["z", "scale", "beta", "mean", "var"], ["y"]),
    ]
    model = onnx_model(nodes, stored, (4, 3, 6, 6))
    x = rng.normal(size=(4, 3, 6, 6)).astype(np.float32)
    before, z = run(model, {"x": x}), x
    (view,) = views(build_graph(ir.from_proto(model), {"x": (4, 3, 6, 6)}))
    less = np.array(z)
    less[:, 1] = 0  # a channel has gone
    rows = view.rows(less, (4, 5, 6, 6), np.arange(36))
    targets = view.rows(x, (4, 5, 6, 6), np.arange(36))[:, 0] @ view.matrix(stored["w"])[0]
    new = fit_statistics(Pair(view, view, np.arange(5)), Rows([rows], [targets]))
    assert set(new) == {"mean", "var"}
    (after,) = run(onnx_model(nodes, {**stored, **new}, (4, 3, 6, 6)), {"x": less})
    assert np.allclose(after.mean((0, 2, 3)), before[0].mean((0, 2, 3)), atol=1e-4)
    assert np.allclose(after.std((0, 2, 3)), before[0].std((0, 2, 3)), rtol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 9), st.integers(1, 5))
def test_conjugate_gradients_within_a_pattern_are_least_squares(
    seed: int, groups: int, columns: int, outputs: int
) -> None:
    rng = RNG(seed)
    x = rng.normal(size=(groups, 40, columns))
    y = rng.normal(size=(groups, 40, outputs))
    pull = rng.normal(size=(groups, columns, outputs))
    support = rng.random((groups, columns, outputs)) < 0.6
    damp = np.full((groups, 1, 1), 0.3)
    xx, xy = np.matmul(x.transpose(0, 2, 1), x), np.matmul(x.transpose(0, 2, 1), y)
    got = solve_within(xx, xy, pull, damp, support)
    assert not got[~support].any()
    for g, o in itertools.product(range(groups), range(outputs)):
        own = np.flatnonzero(support[g, :, o])
        rows = np.vstack([x[g][:, own], np.sqrt(0.3) * np.eye(own.size)])
        target = np.concatenate([y[g, :, o], np.sqrt(0.3) * pull[g, own, o]])
        wanted = np.linalg.lstsq(rows, target, rcond=None)[0]
        assert np.abs(got[g, own, o] - wanted).max(initial=0) < 1e-6


def test_the_loss_of_optimal_brain_surgeon_is_the_change_of_the_output() -> None:
    """Greedy losses equal the measured squared error of the refitted layer, and the first choice is the best one."""
    rng = RNG(6)
    x = rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12))
    w = rng.normal(size=(12, 3))
    channel = np.repeat(np.arange(4), 3)
    covariance = x.T @ x / len(x)

    def error(gone: Sequence[int]) -> float:
        kept = np.flatnonzero(~np.isin(channel, gone))
        best = np.linalg.lstsq(x[:, kept], x @ w, rcond=None)[0]
        return float(np.square(x @ w - x[:, kept] @ best).sum() / len(x))

    reader = Reader(np.linalg.inv(covariance), w.copy(), channel, 1.0)
    order, losses = greedy_order([reader], np.arange(4))
    assert sorted(order) == [0, 1, 2, 3]
    assert order[0] == min(range(4), key=lambda c: error([c]))
    for count in (1, 2, 3, 4):
        assert losses[count - 1] == pytest.approx(error(order[:count].tolist()), rel=1e-6)
    # and the refit in closed form, used for the distortion tables, reaches it
    kept = np.flatnonzero(~np.isin(channel, order[:2]))
    v = kept_columns(covariance[None], w[None], kept[None], np.zeros((1, 1, 1)))[0]
    assert np.square(x @ w - x[:, kept] @ v).sum() / len(x) == pytest.approx(losses[1], rel=1e-6)


def test_the_score_of_flap_is_the_change_of_the_output() -> None:
    """Variance times squared norm: the error that is left once the bias has taken the mean, for inputs that are
    independent; summed over several removed inputs too."""
    rng = RNG(7)
    x = rng.normal(size=(200_000, 6)) * np.arange(1, 7) + 3
    w = rng.normal(size=(6, 4))
    score = x.var(0) * np.square(w).sum(1)
    gone = [1, 4]
    kept = np.setdiff1d(np.arange(6), gone)
    left = x[:, kept] @ w[kept] + x[:, gone].mean(0) @ w[gone]
    assert np.square(x @ w - left).sum(1).mean() == pytest.approx(score[gone].sum(), rel=0.02)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 4), st.floats(0.05, 0.95))
def test_rate_distortion_equals_brute_force(seed: int, pools: int, share: float) -> None:
    rng = RNG(seed)
    costs = [np.cumsum([0, *rng.integers(1, 5, rng.integers(1, 5))]).astype(float) for _ in range(pools)]
    distortions = [np.cumsum([0, *rng.random(c.size - 1)]) for c in costs]
    budget = share * sum(c[-1] for c in costs)
    found = allocate(costs, distortions, budget)
    assert sum(c[k] for c, k in zip(costs, found, strict=True)) >= budget * (1 - pools / 4096) - 1e-9
    best = min(
        sum(d[k] for d, k in zip(distortions, choice, strict=True))
        for choice in itertools.product(*(range(c.size) for c in costs))
        if sum(c[k] for c, k in zip(costs, choice, strict=True)) >= budget - 1e-9
    )
    assert sum(d[k] for d, k in zip(distortions, found, strict=True)) <= best + 1e-9


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="more than all options"):
        allocate([np.array([0.0, 1.0])], [np.array([0.0, 1.0])], 2.0)


def test_moments_over_batches_are_those_of_all_rows() -> None:
    rng = RNG(8)
    x, y = rng.normal(size=(90, 2, 5)), rng.normal(size=(90, 2, 3))
    moments = Moments()
    for part in (slice(0, 20), slice(20, 90)):
        moments.add(x[part], y[part])
    for g in range(2):
        assert np.allclose(moments.covariance(centred=True)[g], np.cov(x[:, g].T, bias=True))
        assert np.allclose(moments.covariance(centred=False)[g], x[:, g].T @ x[:, g] / 90)
    assert damping(np.eye(5)[None], 10, 0.01)[0, 0, 0] == pytest.approx(0.05)
    assert ridge_for(100) == pytest.approx(0.05)
    assert ridge_for(5000) == pytest.approx(0.01)
    assert 0.01 < ridge_for(700) < 0.05


def test_distances() -> None:
    rng = RNG(9)
    a = {"y": rng.normal(size=(4, 3))}
    p, q = ({"y": rng.normal(size=(4, 3))} for _ in range(2))
    assert output_distance([a], [a]) == 0
    soft = lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)  # noqa: E731
    wanted = (soft(p["y"]) * np.log(soft(p["y"]) / soft(q["y"]))).sum(1).mean()
    assert output_distance([p], [q]) == pytest.approx(wanted)
    image = {"y": rng.normal(size=(2, 3, 4, 4))}
    moved = {"y": image["y"] + 1}
    assert output_distance([image], [moved]) == pytest.approx(1 / image["y"].var())


def test_large_models_are_measured_coarsely() -> None:
    small, large = effort_for(40_000_000, 12), effort_for(4_000_000_000, 37)
    assert (small.samples, small.orders, len(small.levels)) == (256, 2, 7)
    assert large.orders == 1
    assert large.samples == 16
    middle = effort_for(126_000_000, 30)
    assert (middle.orders, len(middle.levels)) == (1, 7)
    assert 64 <= middle.samples <= 80
    assert samples_for(40_000_000, 65_536) == 2000
    assert samples_for(4_000_000_000, 3_211_264) < 400


# -- whole models -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 images as ResNet-20 takes them, and labels."""
    with np.load(EVAL) as stored:
        pixels = (
            stored["images"] if "images" in stored else stored[next(k for k in stored if k.endswith("_u8"))]
        )
        mean, std, labels = stored["mean"].reshape(-1), stored["std"].reshape(-1), stored["labels"]
    x = pixels.astype(np.float32) / 255
    if x.shape[-1] == 3:
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray((x - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1), np.float32), labels


def options(structure: str = "channel", share: float = 0.3, **words) -> PruneOptions:
    budget = requested_budget(structure, "2:4", {"sparsity": None if structure == "nm" else share})
    return PruneOptions(budget, structure=structure, **words)


def accuracy(model: graphprune.Model, x: np.ndarray, labels: np.ndarray) -> float:
    (logits,) = run(model.to_onnx(), {model.ir.graph.inputs[0].name: x})
    return float((logits.argmax(1) == labels).mean())


PAIRS = [(n, s) for n, c in all_data_criteria().items() for s in c.structures if n != "ablation"]


@pytest.mark.parametrize(("method", "structure"), PAIRS)
def test_every_criterion_on_every_structure(
    method: str, structure: str, images: tuple[np.ndarray, np.ndarray]
) -> None:
    """Proved, within the budget, and the same again; better than magnitude with nothing else."""
    model = graphprune.load(RESNET)
    x, labels = images
    batches = batched({"input": x[:48]}, 48)
    criterion = all_data_criteria()[method]
    chosen = options(structure, method=method, allocation=criterion.allocation, block="4x4x1x1")
    first = prune_calibrated(model, chosen, batches)
    assert first.fidelity.holds
    assert first.plan.method == method
    assert first.plan.weights == ("original" if criterion.compensate == "none" else "trained")
    wanted = 0.5 if structure == "nm" else 0.3
    assert first.plan.budget["achieved"] == pytest.approx(wanted, abs=0.02)
    if (method, structure) in (("obs", "channel"), ("wanda", "block"), ("wanda", "nm"), ("flap", "channel")):
        again = prune_calibrated(model, chosen, batches)
        assert again.plan.to_json() == first.plan.to_json()
        assert ir.to_proto(again.model).SerializeToString() == ir.to_proto(first.model).SerializeToString()
    if criterion.compensate == "lstsq":
        plain = graphprune.prune(
            model, method="magnitude", structure=structure, block="4x4x1x1",
            sparsity=None if structure == "nm" else 0.3,
        )  # fmt: skip
        ours = accuracy(graphprune.Model(first.model), x[96:], labels[96:])
        assert ours > accuracy(plain.model, x[96:], labels[96:]) + (0.02 if structure == "nm" else 0.2)


@pytest.mark.parametrize("kind", ["none", "bias", "lstsq"])
def test_compensation_after_magnitude(kind: str, images: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = images
    model = graphprune.load(RESNET)
    batches = batched({"input": x[:128]}, 64)
    result = prune_calibrated(model, options(share=0.3, method="magnitude"), batches, compensate=kind)
    assert result.fidelity.holds
    found = accuracy(graphprune.Model(result.model), x[128:], labels[128:])
    least = {"none": 0.0, "bias": 0.3, "lstsq": 0.65}[kind]
    assert found > least


def test_ablation_scores_single_channels(images: tuple[np.ndarray, np.ndarray]) -> None:
    """On a small network, each score is the distance that a hand-made mask gives."""
    rng = RNG(10)
    weights = {
        "a": rng.normal(size=(4, 3, 3, 3)), "b": rng.normal(size=(5, 4, 3, 3)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["y"]),
    ]  # fmt: skip
    proto = onnx_model(nodes, weights, (2, 3, 9, 9))
    model = graphprune.load(proto)
    x = rng.normal(size=(6, 3, 9, 9)).astype(np.float32)
    chosen = options(share=0.25, method="ablation", multiple_of=1, input_shapes={"x": (1, 3, 9, 9)})
    analysis = analyze(model.ir, "m", chosen)
    statistics = Statistics(model.ir, analysis, chosen, [{"x": x}])
    scores = all_data_criteria()["ablation"].channels(statistics)
    (group,) = [g for g in analysis.groups if g.prunable]
    (dense,) = run(proto, {"x": x})
    for position, channel in enumerate(group.channels.tolist()):
        masked = {**weights, "b": weights["b"] * (np.arange(4) != position)[None, :, None, None]}
        (y,) = run(onnx_model(nodes, masked, (2, 3, 9, 9)), {"x": x})
        wanted = float(np.square(y - dense).mean() / np.square(dense - dense.mean()).mean())
        if scores[channel] != statistics.magnitudes[channel]:  # one is protected: an axis is never emptied
            assert scores[channel] == pytest.approx(wanted, rel=1e-3)
    assert sum(scores[c] != statistics.magnitudes[c] for c in group.channels) == 3


def test_moments_are_collected_at_the_inputs(images: tuple[np.ndarray, np.ndarray]) -> None:
    x = images[0][:64]
    model = graphprune.load(RESNET)
    graph = build_graph(model.ir, {"input": (1, 3, 32, 32)})
    found = views(graph)
    moments = collect(model.ir, graph, found, batched({"input": x}, 32))
    assert len(moments) == len(found) > 15
    first = found[0]
    assert first.input.name == "input"
    assert moments[first.name].rows >= 20_000
    mean = moments[first.name].x[0] / moments[first.name].rows
    assert np.allclose(mean.reshape(3, -1).mean(1), x.mean((0, 2, 3)), atol=0.15)


def test_what_follows_a_contraction() -> None:
    graph = build_graph(graphprune.load(RESNET).ir, {"input": (1, 3, 32, 32)})
    found = [what_follows(v) for v in views(graph)]
    assert sum(bool(added) and relu for added, relu in found) >= 9  # the second convolution of every block
    assert sum(not added and relu for added, relu in found) == 10  # the stem and the first of every block
    assert found[-1] == ("", False)


def test_blocks_need_a_criterion_of_weights(images: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(OptionError, match="flap scores whole channels"):
        prune_calibrated(
            graphprune.load(RESNET), options("block", method="flap"), batched({"input": images[0][:8]}, 8)
        )
    with pytest.raises(OptionError, match="unknown --compensate 'lstq'"):
        prune_calibrated(graphprune.load(RESNET), options(), [{"input": images[0][:8]}], compensate="lstq")


# -- the calls of users -------------------------------------------------------------------------------------------


def small_network() -> tuple[object, np.ndarray]:
    """Four convolutions, one of them on a shortcut, and inputs."""
    rng = RNG(12)
    weights = {
        "a": rng.normal(size=(16, 3, 3, 3)), "b": rng.normal(size=(24, 16, 3, 3)), "c": rng.normal(size=(16, 24, 1, 1)),
        "d": rng.normal(size=(8, 16, 3, 3)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["i"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["i"], ["s"]),
        helper.make_node("Conv", ["s", "c"], ["j"]), helper.make_node("Add", ["j", "r"], ["t"]),
        helper.make_node("Relu", ["t"], ["u"]), helper.make_node("Conv", ["u", "d"], ["y"]),
    ]  # fmt: skip
    return onnx_model(nodes, weights, ("n", 3, 8, 8)), rng.normal(size=(64, 3, 8, 8)).astype(np.float32)


def test_the_default_with_data_is_reconstruct() -> None:
    model, x = small_network()
    feeds = batched({"x": x}, 32)
    result = graphprune.prune(model, sparsity=0.2, data=feeds)
    assert result.plan.method == "reconstruct"
    assert result.plan.calibration == {
        "samples": 64, "compensate": "lstsq", "allocation": "rate-distortion"
    }  # fmt: skip
    again = graphprune.prune(model, sparsity=0.2, data=feeds)
    assert again.model.to_onnx().SerializeToString() == result.model.to_onnx().SerializeToString()
    assert graphprune.prune(model, sparsity=0.2).plan.method == "magnitude"


def test_without_data_inputs_are_noise(images: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = images
    result = graphprune.prune(RESNET, sparsity=0.1, method="obs", samples=64)
    assert any("random noise" in n for n in result.analysis.notes)
    assert accuracy(result.model, x, labels) > 0.5


@pytest.mark.parametrize("allocation", ["uniform", "erk", "cosine", "rate-distortion"])
@pytest.mark.parametrize("budget", ["params", "macs"])
def test_allocations_and_budgets(allocation: str, budget: str) -> None:
    model, x = small_network()
    result = graphprune.prune(
        model, method="wanda", allocation=allocation, data=[{"x": x}], multiple_of=1, **{budget: 0.4}
    )
    assert result.fidelity.holds
    assert result.plan.budget["achieved"] == pytest.approx(0.4, abs=0.03)


def test_the_cosine_allocation_spares_blocks_that_turn_more(images: tuple[np.ndarray, np.ndarray]) -> None:
    from graphprune.calibration.turning import turning

    model = graphprune.load(RESNET)
    chosen = options(method="wanda", allocation="cosine", multiple_of=1)
    analysis = analyze(model.ir, "m", chosen)
    turned = turning(Statistics(model.ir, analysis, chosen, [{"input": images[0][:32]}]))
    result = graphprune.prune(
        RESNET,
        sparsity=0.4,
        method="wanda",
        allocation="cosine",
        data=[{"input": images[0][:32]}],
        multiple_of=1,
    )
    inner = [g for g in analysis.groups if g.prunable and len(g.producers) == 1 and g.producers[0] in turned]
    gone = result.plan.removed
    shares = [len(gone.get(g.weights[0], {}).get("0", [])) / g.channels.size for g in inner]
    turns = [turned[g.producers[0]] for g in inner]
    assert len(inner) == 9
    assert np.corrcoef(shares, turns)[0, 1] < -0.9


def test_a_module_is_reconstructed_too(images: tuple[np.ndarray, np.ndarray]) -> None:
    torch = pytest.importorskip("torch", reason="modules need torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10),
    ).eval()  # fmt: skip
    x = torch.from_numpy(images[0][:32])
    name = graphprune.load(net, x).ir.graph.inputs[0].name
    errors = {}
    for method in ("magnitude", "reconstruct"):
        result = graphprune.prune(net, x, sparsity=0.5, method=method, data=[{name: images[0][:32]}])
        with torch.no_grad():
            errors[method] = float((result.module(x) - net(x)).square().mean())
    assert set(result.module.state_dict()) == set(net.state_dict())
    assert errors["reconstruct"] < 0.2 * errors["magnitude"]


def test_sizes_are_those_of_the_data() -> None:
    """A model that takes images of any size, on images of a size that nobody would guess."""
    rng = RNG(11)
    weights = {"a": rng.normal(size=(16, 3, 3, 3)), "b": rng.normal(size=(8, 16, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["y"]),
    ]  # fmt: skip
    model = onnx_model(nodes, weights, ("n", 3, "h", "w"))
    x = rng.normal(size=(40, 3, 11, 13)).astype(np.float32)
    (dense,) = run(model, {"x": x})
    errors = []
    for method in ("wanda", "reconstruct"):
        result = graphprune.prune(model, sparsity=0.3, method=method, data=[{"x": x}], multiple_of=1)
        (small,) = run(result.model.to_onnx(), {"x": x})
        errors.append(float(np.square(small - dense).mean()))
    assert errors[1] < 0.8 * errors[0]
    with pytest.raises(graphprune.DataError, match="bring them to one size"):
        graphprune.prune(model, sparsity=0.3, data=[{"x": x}, {"x": x[:, :, 1:]}])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"data": [{"input": np.zeros((2, 5, 32, 32), np.float32)}]}, "cannot run the model on the calibration data"),
        ({"data": [{"x": np.zeros(3)}]}, "no array for input 'input'"),
        ({"data": [], "method": "wanda"}, "there are no feeds"),
        ({"method": "smart", "compensate": "bias"}, "method smart trains"),
        ({"method": "wandda", "compensate": "bias"}, "did you mean 'wanda'"),
        ({"allocation": "rate-distortion"}, "looks at inputs: give --data"),
        ({"method": "wanda", "samples": 0}, "--samples 0: give a number from 1"),
        ({"method": "wanda", "training": graphprune.TrainingOptions("x.npz")}, "does not train"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(words: dict, sentence: str) -> None:
    with pytest.raises(graphprune.GraphpruneError, match=sentence):
        graphprune.prune(RESNET, sparsity=0.2, **words)
