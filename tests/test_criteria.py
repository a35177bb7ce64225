"""Scores from weights: each against its definition, written out, and on every structure it declares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import graphprune
from graphprune.blocking import Blocking
from graphprune.contractions import contraction_weights
from graphprune.criteria import (
    UnitRows,
    all_criteria,
    block_scores,
    channel_scores,
    criterion,
    find_criterion,
    registry,
)
from graphprune.errors import OptionError
from graphprune.notation import parse_block

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
MATRICES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 5)),
    elements=st.floats(-4, 4, width=32),
)


def rows(weights: np.ndarray) -> UnitRows:
    return UnitRows(weights, np.full(len(weights), weights.shape[1]), np.random.default_rng(0))


def score(name: str, weights: np.ndarray) -> np.ndarray:
    function = find_criterion(name).units
    assert function is not None
    return function(rows(np.asarray(weights, np.float32)))


@settings(deadline=None)
@given(MATRICES)
def test_magnitudes_are_means_over_a_unit(w: np.ndarray) -> None:
    w64 = w.astype(np.float64)
    assert score("magnitude", w) == pytest.approx(np.sqrt((w64**2).mean(1)))
    assert score("magnitude-l1", w) == pytest.approx(np.abs(w64).mean(1))


@settings(deadline=None)
@given(MATRICES)
def test_lamp_is_equation_2(w: np.ndarray) -> None:
    size = (w.astype(np.float64) ** 2).sum(1)
    expected = [s / max(size[size >= s].sum(), np.finfo(float).tiny) for s in size]
    found = score("lamp", w)
    assert found == pytest.approx(expected)
    assert np.array_equal(np.argsort(found, kind="stable"), np.argsort(size, kind="stable"))
    if np.count_nonzero(size == size.max()) == 1 and size.max() > 0:
        assert found.max() == pytest.approx(1)


def test_dimap_is_lamp_inside_a_residual_block() -> None:
    """The two convolutions of ResNet-20's first block compete; written out from the file's weights."""
    analysis = graphprune.analyze(RESNET)
    groups, values = analysis.groups, analysis.graph.values
    found = channel_scores(groups, find_criterion("dimap"), np.random.default_rng(0))
    first, second = (values[f"stages.0.0.body.{i}.0.weight"].array().astype(np.float64) for i in (0, 2))
    squares = np.concatenate([np.square(w).mean((1, 2, 3)) for w in (first, second)])
    lamp = [q / squares[squares >= q].sum() for q in squares]
    inner = next(g for g in groups if g.weights == ("stages.0.0.body.0.0.weight",))
    assert found[inner.channels] == pytest.approx(lamp[:16])


def test_lamp_never_empties_a_tensor() -> None:
    """The best block of every weight scores 1, and no score is larger: a global cut takes it last."""
    result = graphprune.prune(
        RESNET, structure="block", method="lamp", sparsity=0.9, max_layer_sparsity=1.0, allocation="global"
    )
    assert all(entry["kept"] for entry in result.plan.blocks.values())


@settings(deadline=None)
@given(MATRICES)
def test_fpgm_is_the_mean_distance(w: np.ndarray) -> None:
    w64 = w.astype(np.float64)
    expected = np.linalg.norm(w64[:, None] - w64[None], axis=2).mean(1)
    assert score("fpgm", w) == pytest.approx(expected, abs=2e-6)


def test_fpgm_prefers_what_others_can_replace() -> None:
    """A large filter amid others like it goes before a small one far away (figure 1 of the paper)."""
    w = np.array([[5.0, 5.0], [5.1, 5.0], [5.0, 5.1], [0.1, 0.1]])
    assert score("fpgm", w).argmax() == 3
    assert score("magnitude", w).argmin() == 3


def test_a_channel_s_score_is_the_mean_over_its_slices() -> None:
    analysis = graphprune.analyze(RESNET)
    coupling = analysis.coupling
    found = channel_scores(analysis.groups, find_criterion("magnitude"), np.random.default_rng(0))
    group = next(g for g in analysis.groups if g.prunable and len(g.members) == 6)
    expected = np.zeros(group.channels.size)
    count = 0
    for s in coupling.coupler.slices:
        channels = coupling.of(s.ids)
        if s.tensor.rank < 2 or not np.isin(channels, group.channels).all():
            continue
        norm = np.linalg.norm(np.moveaxis(s.tensor.array(), s.axis, 0).reshape(channels.size, -1), axis=1)
        order = np.argsort(channels)
        expected += norm[order] / norm.mean()
        count += 1
    assert count == 2
    assert found[np.sort(group.channels)] == pytest.approx(expected / count, rel=1e-5)


def test_partial_blocks_count_their_own_weights() -> None:
    """A weight of ones: every block's mean is 1, however much of it is real."""
    weights = contraction_weights(graphprune.analyze(RESNET).graph)
    blocking = Blocking(weights, parse_block("5x3x2x2"), 0.5)
    for name in ("magnitude", "magnitude-l1"):
        found = block_scores(
            blocking, find_criterion(name), np.random.default_rng(0), lambda v: np.ones(v.shape)
        )
        assert found == pytest.approx(1)
    assert (blocking.cost < blocking.cost.max()).any()


STRUCTURES = {
    "channel": {"sparsity": 0.5},
    "block": {"sparsity": 0.7, "block": "16x8x1x1"},
    "nm": {"nm": "2:4"},
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", sorted(all_criteria()))
def test_every_criterion_on_every_structure_it_declares(name: str, structure: str) -> None:
    words = STRUCTURES[structure] | {"structure": structure, "method": name, "seed": 3}
    if structure not in find_criterion(name).structures:
        with pytest.raises(OptionError, match="scores whole channels"):
            graphprune.prune(RESNET, **words)
        return
    first, second = (graphprune.prune(RESNET, **words) for _ in range(2))
    assert first.plan.to_json() == second.plan.to_json()
    assert first.fidelity.holds
    wanted = {"channel": 0.5, "block": 0.7, "nm": 0.5}[structure]
    assert first.plan.budget["achieved"] == pytest.approx(wanted, abs=0.01)


def test_a_criterion_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """One function is all: it serves channels, blocks and N:M at once."""
    monkeypatch.setattr(registry, "_CRITERIA", dict(registry._CRITERIA))

    @criterion("largest-weight", citation="nobody")
    def largest_weight(units: UnitRows) -> np.ndarray:
        """The largest weight of a unit."""
        return np.abs(units.weights).max(axis=1)

    assert find_criterion("largest-weight").summary == "The largest weight of a unit."
    for structure, words in STRUCTURES.items():
        result = graphprune.prune(RESNET, structure=structure, method="largest-weight", **words)
        assert result.fidelity.holds
    with pytest.raises(OptionError, match="did you mean 'largest-weight'"):
        graphprune.prune(RESNET, sparsity=0.5, method="largest-weigth")
    with pytest.raises(ValueError, match="there is a criterion"):
        criterion("largest-weight")(largest_weight)
