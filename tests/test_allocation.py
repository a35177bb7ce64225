"""How budgets are spread: each against its published rule, on blocks and on channels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import graphprune
from graphprune.allocation import ALLOCATIONS, Layer, lamp_scores, pq_density
from graphprune.errors import OptionError

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
WEIGHTS = {"structure": "block", "block": "1x1x1x1", "max_layer_sparsity": 1.0}
SHAPES = {t: v.shape for t, v in graphprune.analyze(RESNET).graph.values.items() if v.stored}


def densities(result: graphprune.PruneResult) -> dict[str, float]:
    """Share of every weight that stays."""
    return {n: len(e["kept"]) / math.prod(SHAPES[n]) for n, e in result.plan.blocks.items()}


@settings(deadline=None)
@given(
    arrays.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 10)),
    st.sampled_from(sorted(ALLOCATIONS)),
)
def test_the_order_inside_a_layer_is_the_criterion_s(scores: np.ndarray, name: str) -> None:
    squares = np.random.default_rng(0).random(scores.size)
    layer = Layer(scores, np.ones(scores.size), [(16, 8, 3, 3)], lambda: squares, scores)
    ranks = ALLOCATIONS[name](layer)
    order = np.argsort(-scores, kind="stable")
    assert (np.diff(ranks[order]) <= 0).all()


def test_erk_is_the_published_density() -> None:
    """density = min(1, epsilon * (sum of sizes) / (product of sizes)), and the sum meets the budget."""
    found = densities(graphprune.prune(RESNET, sparsity=0.9, allocation="erk", **WEIGHTS))
    rule = {n: sum(SHAPES[n]) / math.prod(SHAPES[n]) for n in found}
    factors = {n: found[n] / rule[n] for n in found if found[n] < 1}
    assert len(factors) > 15
    for name, factor in factors.items():
        one_weight = 1 / math.prod(SHAPES[name]) / rule[name]
        assert factor == pytest.approx(np.median(list(factors.values())), abs=2 * one_weight)
    assert {n for n in found if found[n] == 1} == {n for n in found if rule[n] * max(factors.values()) >= 1}


def test_lamp_allocates_as_lamp_does() -> None:
    """With magnitude inside every weight, the allocation alone gives what the criterion gives globally."""
    spread = graphprune.prune(RESNET, sparsity=0.9, allocation="lamp", **WEIGHTS)
    whole = graphprune.prune(RESNET, sparsity=0.9, method="lamp", **WEIGHTS)
    assert whole.plan.blocks == spread.plan.blocks
    other = graphprune.prune(RESNET, sparsity=0.9, method="random", allocation="lamp", **WEIGHTS)
    assert densities(other) == densities(spread)
    assert other.plan.blocks != spread.plan.blocks


def test_lamp_scores_by_hand() -> None:
    assert lamp_scores(np.array([1.0, 4.0, 2.0])) == pytest.approx([1 / 7, 1.0, 2 / 6])


@given(arrays.arrays(np.float64, st.integers(2, 20), elements=st.floats(0.01, 10)))
def test_the_pq_density_by_its_formula(norms: np.ndarray) -> None:
    d, p, q = norms.size, 0.5, 1.0
    index = 1 - d ** (1 / q - 1 / p) * np.linalg.norm(norms, p) / np.linalg.norm(norms, q)
    density = pq_density(norms)
    assert density == pytest.approx((1 - index) ** (p * q / (q - p)), rel=1e-6)
    assert 1 / d - 1e-9 <= density <= 1 + 1e-9
    assert pq_density(np.ones(d)) == pytest.approx(1.0)
    assert pq_density(np.eye(d)[0]) == pytest.approx(1 / d)


def test_precropping_takes_square_roots_of_densities() -> None:
    """A layer of which a threshold keeps a quarter of the units keeps half of its width under it."""
    rng = np.random.default_rng(0)
    layers = [rng.random(400) ** power for power in (1, 3)]
    ranks = [ALLOCATIONS["precrop"](Layer(v, np.ones(400), [(400, 9)], lambda v=v: v, v)) for v in layers]
    for threshold in (0.1, 0.5, 0.9):
        for values, found in zip(layers, ranks, strict=True):
            density, width = float((values >= threshold).mean()), float((found >= threshold).mean())
            assert width == pytest.approx(density**0.5, abs=0.01)


@pytest.mark.parametrize("name", sorted(ALLOCATIONS))
@pytest.mark.parametrize("budget", ["sparsity", "params", "macs"])
def test_channels(name: str, budget: str) -> None:
    result = graphprune.prune(RESNET, allocation=name, multiple_of=1, **{budget: 0.4})
    assert result.fidelity.holds
    assert result.plan.budget["achieved"] == pytest.approx(0.4, abs=0.01)


def test_erk_takes_more_channels_from_larger_layers() -> None:
    result = graphprune.prune(RESNET, sparsity=0.4, allocation="erk", multiple_of=1)
    kept = {}
    for name, axes in result.plan.removed.items():
        if name.endswith("body.0.0.weight") and "0" in axes:
            kept[SHAPES[name][0]] = 1 - len(axes["0"]) / SHAPES[name][0]
    inner = {64: kept[64], 32: kept[32]}
    assert inner[64] < inner[32]
    assert inner[64] / inner[32] == pytest.approx(
        (64 + 64 + 6) / (64 * 64) / ((32 + 32 + 6) / (32 * 32)), rel=0.15
    )


@pytest.mark.parametrize("structure", ["channel", "block"])
def test_trained_masks_keep_to_the_allocation(structure: str) -> None:
    """Soft budgets are those of every layer; what hardens is what one shot would keep there."""
    pytest.importorskip("torch", reason="trained masks need torch")
    from graphprune.search.search import Search

    words = {"structure": structure, "sparsity": 0.5, "allocation": "erk", "multiple_of": 1}
    search = Search(RESNET, max_steps=1, **words)
    sections = search.masking.units.sections
    assert len(sections) > 10
    plan, _ = search.finish()
    assert sum(s.target for s in sections) / sum(s.total for s in sections) == pytest.approx(0.5, abs=0.01)
    assert plan.budget["achieved"] == pytest.approx(0.5, abs=0.01)
    once = graphprune.prune(RESNET, **words).plan
    assert once.blocks == plan.blocks
    assert {n: len(a.get("0", ())) for n, a in once.removed.items()} == {
        n: len(a.get("0", ())) for n, a in plan.removed.items()
    }


def test_unknown_allocation() -> None:
    for words in ({"structure": "block"}, {}):
        with pytest.raises(OptionError, match="unknown allocation 'lmap'"):
            graphprune.prune(RESNET, sparsity=0.5, allocation="lmap", **words)
