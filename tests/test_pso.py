"""PSO: the mathematics of its path against definitions and differences, and the method on small networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch", reason="gradients need torch")

import torch
import torch.nn.functional as F

from graphprune.errors import OptionError
from graphprune.methods import pso as module
from graphprune.methods.pso import STEPS, descent, pso, unit_norms, unit_weights
from graphprune.methods.pso_flow import (
    density,
    density_gradient,
    hard,
    quantile_sigmoid,
    steps,
    velocity,
)
from graphprune.search.scoring import Sample, Scoring
from graphprune.search.search import Search

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- the path -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("reach", [1.01, 1.1, 3.0])
def test_velocity_meets_its_constraints_and_is_the_published_one(seed: int, reach: float) -> None:
    rng = np.random.default_rng(seed)
    e, g = rng.normal(size=30) * 10.0 ** rng.integers(-6, 6), rng.normal(size=30) + 0.2
    f = velocity(e, g, reach)
    assert g @ f == pytest.approx(1)
    assert np.linalg.norm(f) * np.linalg.norm(g) == pytest.approx(reach)
    x = np.sqrt((reach**2 - 1) / ((g @ g) * (e @ e) - (g @ e) ** 2))
    y = (1 - x * (g @ e)) / (g @ g)
    assert f == pytest.approx(x * e + y * g)


def test_no_other_velocity_saves_more_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    e, g = rng.normal(size=12), rng.normal(size=12)
    best = e @ velocity(e, g)
    for other in rng.normal(size=(500, 12)):
        assert e @ velocity(other, g) < best


@pytest.mark.parametrize("factor", [0.0, 1.0, -3.0, 1e-9])
def test_a_loss_that_only_follows_the_density_gets_the_shortest_step(factor: float) -> None:
    g = np.random.default_rng(1).normal(size=20)
    assert velocity(factor * g, g) == pytest.approx(g / (g @ g))


def test_density_and_its_gradient() -> None:
    rng = np.random.default_rng(2)
    m, cost = rng.normal(size=25), rng.uniform(1, 9, 25)
    keep = rng.random(25) < 0.5
    assert density(np.ones(25), cost) == pytest.approx(1)
    assert density(keep.astype(float), cost) ** 2 == pytest.approx(cost[keep].sum() / cost.sum())
    ends = [[density(m + h * unit, cost) for h in (1e-6, -1e-6)] for unit in np.eye(25)]
    assert density_gradient(m, cost) == pytest.approx([(a - b) / 2e-6 for a, b in ends], abs=1e-8)


@pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-4])
def test_the_density_falls_by_the_step(step: float) -> None:
    """dG/dt = -1, whatever the loss wants; what is missing is of second order."""
    rng = np.random.default_rng(3)
    cost = rng.uniform(1, 9, 200)
    m = rng.uniform(-0.2, 1, 200)
    f = velocity(rng.normal(size=200), -density_gradient(m, cost))
    assert density(m + step * f, cost) - density(m, cost) == pytest.approx(-step, abs=5 * step**2)


@pytest.mark.parametrize(("start", "target"), [(1.0, 0.3), (1.0, 0.01), (0.7, 0.5), (1.0, 1.0)])
def test_steps_lead_from_start_to_target_and_shrink(start: float, target: float) -> None:
    found = steps(start, target, 100)
    assert found.sum() == pytest.approx(start - target)
    assert found.size == 100
    if start > target:
        assert (np.diff(found) < 0).all()
        i = np.arange(100) / 100
        relative = target / start
        published = relative * (relative ** (i - 1) - relative ** (i + 0.01 - 1))
        assert found == pytest.approx(start * published)


# -- the polarisers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [0.05, 0.3, 0.9])
def test_soft_masks_are_near_1_above_the_threshold_and_near_0_below(gone: float) -> None:
    rng = np.random.default_rng(4)
    m, norms = rng.normal(size=400), rng.uniform(0.5, 2, 400)
    found = quantile_sigmoid(m, norms, gone)
    size = np.abs(m) * norms
    assert found.mask[size >= np.quantile(size, gone)].min() >= 0.9
    assert found.mask[size <= np.quantile(size, 0.9 * gone)].max() <= 0.1
    assert (np.diff(found.mask[np.argsort(size)]) >= 0).all()
    assert (~found.above).sum() == np.ceil(gone * 399)


def test_slopes_of_soft_masks_are_their_derivatives() -> None:
    """By differences, for units that are not at the quantiles themselves (the threshold is held)."""
    rng = np.random.default_rng(5)
    m, norms, gone = rng.normal(size=81), rng.uniform(0.5, 2, 81), 0.5
    order = np.argsort(np.abs(m) * norms)
    ends = [[quantile_sigmoid(m + h * unit, norms, gone).mask for h in (1e-7, -1e-7)] for unit in np.eye(81)]
    found = np.array([(a - b)[i] / 2e-7 for i, (a, b) in enumerate(ends)])
    held = np.isin(np.arange(81), order[[36, 40]])
    assert np.abs(found[~held]).max() > 1
    slope = quantile_sigmoid(m, norms, gone).slope
    assert slope[~held] == pytest.approx(found[~held], rel=1e-4, abs=1e-6)


def test_hard_masks_pass_gradients_straight_through() -> None:
    m, norms = np.array([1.0, -0.5, 0.2, 0.1]), np.ones(4)
    found = hard(m, norms, 0.5)
    assert found.mask.tolist() == [1, 1, 0, 0]
    assert found.slope.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("polarise", [hard, quantile_sigmoid])
def test_polarisers_at_their_ends(polarise: Any) -> None:
    """Masks themselves before a whole unit is gone; equal units stay finite."""
    m = np.linspace(0.5, 1, 10)
    assert polarise(m, np.ones(10), 0.09).mask == pytest.approx(m)
    equal = polarise(np.ones(10), np.ones(10), 0.5)
    assert np.isfinite([*equal.mask, *equal.slope]).all()
    assert np.isfinite(polarise(np.zeros(10), np.ones(10), 0.5).slope).all()


# -- the method on small networks -----------------------------------------------------------------------


def perceptron(weights: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Gemm and Relu in turn, without biases; ``weights``: [outputs, inputs] of each layer."""
    tensors = [numpy_helper.from_array(w.astype(np.float32), f"w{i}") for i, w in enumerate(weights)]
    nodes, last = [], "x"
    for i in range(len(weights)):
        nodes.append(helper.make_node("Gemm", [last, f"w{i}"], [f"u{i}"], transB=1))
        last = f"u{i}"
        if i < len(weights) - 1:
            nodes.append(helper.make_node("Relu", [last], [f"v{i}"]))
            last = f"v{i}"
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weights[0].shape[1]])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, weights[-1].shape[0]])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def random_perceptron(widths: Sequence[int]) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return perceptron([rng.standard_normal((m, n)) for n, m in pairwise(widths)])


def scoring(model: Any, samples: Sequence[Sample], **words: Any) -> Scoring:
    words = {"structure": "block", "block": "1x1", "sparsity": 0.5, **words}
    return Scoring(Search(model, method="pso", deferred=True, **words), samples)


@pytest.mark.parametrize("polarise", [hard, quantile_sigmoid])
def test_descent_is_minus_the_gradient_through_the_polariser(polarise: Any) -> None:
    """Against differences of the loss; for hard masks of the loss in the masks themselves."""
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    found = scoring(random_perceptron([6, 5, 3]), [])
    answers = torch.arange(64) % 3
    rng = np.random.default_rng(6)
    m, norms = rng.uniform(0.2, 1, found.units.size), unit_norms(found)
    masks = polarise(m, norms, 0.5)

    def loss(mask: np.ndarray) -> float:
        with torch.no_grad():
            probe.copy_(torch.from_numpy(mask))
            return float(F.cross_entropy(found.module(x).double(), answers))

    with found.masks_at_one() as probe:
        e = descent(lambda: found.loss((x,), answers), probe, masks)
        quantiles = np.argsort(m * norms)[[19, 20, 22]]  # where they lie would move, too
        for unit in [u for u in np.argsort(-np.abs(e)) if u not in quantiles][:5]:
            h = 1e-3 / masks.slope[unit]
            nudge = h * np.eye(m.size)[unit]
            if polarise is hard:
                ends = loss(masks.mask + nudge), loss(masks.mask - nudge)
            else:
                moved = [
                    np.where(nudge, polarise(m + s * nudge, norms, 0.5).mask, masks.mask) for s in (1, -1)
                ]
                ends = loss(moved[0]), loss(moved[1])
            assert e[unit] == pytest.approx(
                -(ends[0] - ends[1]) / (2 * h), rel=0.02, abs=0.01 * np.abs(e).max()
            )


def test_the_unit_that_matters_stays() -> None:
    """All inputs but one are 0: its weights are the smallest, and the only ones that the loss feels."""
    weight = np.ones((2, 16)) * [[1], [-1]]
    weight[:, 5] *= 0.5
    x = torch.zeros(32, 16)
    x[:, 5] = torch.linspace(-1, 1, 32)
    for method, stays in (("pso", True), ("synflow", False)):
        search = Search(
            perceptron([weight]), structure="block", block="2x1", sparsity=0.75, method=method, batches=[(x,)]
        )
        search.finish()
        assert search.masking.hard.keep[5] == stays, method


@pytest.mark.parametrize("polarise", [hard, quantile_sigmoid])
def test_units_come_back(polarise: Any) -> None:
    """Two batches look at different inputs, in turn: what one lets go, the other wants back."""
    first = torch.randn(32, 40, generator=torch.Generator().manual_seed(2))
    second = first.clone()
    first[:, 20:], second[:, :20] = 0, 0
    found = scoring(random_perceptron([40, 2]), [((first,), None), ((second,), None)])
    scores = pso(found, polarise)
    assert sum(found.curves["regrown"]) > 0
    assert (scores >= 0).all()
    check_curves(found.curves, found.units.size)


@pytest.mark.parametrize("outputs", [1, 3])
def test_without_labels_masks_are_held_to_the_dense_network(outputs: int) -> None:
    """Classes it gives, or outputs; nothing pulls at masks that do not change them."""
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(3))
    found = scoring(random_perceptron([6, 5, outputs]), [((x,), None)])
    dense = found.module(x).detach()
    assert torch.equal(found.wanted((x,), None), dense if outputs == 1 else dense.argmax(1))
    labels = torch.arange(16) % 3
    assert torch.equal(found.wanted((x,), labels), dense if outputs == 1 else labels)
    pso(found)
    check_curves(found.curves, found.units.size)


def test_a_loss_that_is_not_finite() -> None:
    x = torch.full((4, 6), float("inf"))
    with pytest.raises(OptionError, match="--method pso: the masked network's loss is not finite"):
        pso(scoring(random_perceptron([6, 3]), [((x,), None)]))


def test_weights_of_a_unit_are_those_its_mask_multiplies() -> None:
    assert unit_weights(scoring(random_perceptron([6, 5, 3]), [], block="2x4")).tolist() == [
        *[8, 4] * 2, *[4, 2],
        *[8, 2], *[4, 1],
    ]  # fmt: skip


def test_norms_are_relative_to_their_layer() -> None:
    model = random_perceptron([6, 5, 3])
    found = scoring(model, [])
    weights = [np.abs(numpy_helper.to_array(t)) for t in model.graph.initializer]
    expected = np.concatenate([(w / w.mean()).reshape(-1) for w in weights])
    assert unit_norms(found) == pytest.approx(expected, rel=1e-6)


def check_curves(curves: dict[str, list[float]], size: int, count: int = STEPS) -> None:
    """One entry a step; as many units below the last threshold as the density says are gone."""
    assert [len(curves[name]) for name in ("density", "regrown", "removed")] == [count] * 3
    below = sum(curves["removed"]) - sum(curves["regrown"])
    assert below == pytest.approx((1 - curves["density"][-1]) * size, abs=1.01)
    assert (np.diff(curves["density"]) < 0).all()


@pytest.mark.parametrize(
    ("structure", "words"), [("block", {"block": "16x8x1x1"}), ("channel", {})], ids=["block", "channel"]
)
def test_resnet20_end_to_end(structure: str, words: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same, the budget met, and proven; fewer steps than published."""
    monkeypatch.setattr(module, "STEPS", 20)

    def run() -> Search:
        batches = [torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))]
        search = Search(
            RESNET, structure=structure, method="pso", sparsity=0.5, batches=[tuple(batches)], **words
        )
        search.finish()
        return search

    search = run()
    result = search.result()
    assert result.plan.to_json() == run().result().plan.to_json()
    assert result.fidelity.holds
    assert result.plan.budget["achieved"] == pytest.approx(0.5, abs=0.015)
    check_curves(search.curves, search.masking.units.size, 20)
    found = Scoring(search, [])
    cost = unit_weights(found)
    kept = cost[found.kept_with(unit_norms(found))].sum() / cost.sum()
    assert search.curves["density"][-1] == pytest.approx(kept, abs=0.03)
