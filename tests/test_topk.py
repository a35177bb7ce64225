"""Differentiable top-k: the budget holds, gradients are exact, and known identities hold."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch", reason="soft masks need torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.relaxation import (
    Threshold,
    hard_topk,
    soft_budget,
    soft_topk,
    soft_topk_rows,
    solve_threshold,
    undecided,
)

TEMPERATURES = [10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5]
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "three values": lambda rng, n: rng.integers(0, 3, n).astype(float),
    "all equal": lambda rng, n: np.full(n, 0.7),
    "heavy tails": lambda rng, n: rng.standard_cauchy(n),
    "wide": lambda rng, n: 30 * rng.standard_normal(n),
}

finite = st.floats(-5, 5, width=32)
vectors = st.lists(finite, min_size=2, max_size=30).map(lambda v: torch.tensor(v, dtype=torch.float64))
temperatures = st.sampled_from(TEMPERATURES)
shares = st.floats(0.02, 0.98)
bounded = settings(max_examples=80, deadline=None)


def costs(n: int, seed: int = 1) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).uniform(0.1, 5, n))


def spent(s: torch.Tensor, cost: torch.Tensor | None) -> float:
    s = s.detach().double()
    return float(s.sum() if cost is None else s @ cost.double())


def exact_gradient(
    x: torch.Tensor, budget: float, tau: float, cost: torch.Tensor | None, v: torch.Tensor
) -> torch.Tensor:
    """The closed form in float64, from another threshold and another route to s'."""
    u = (x.detach().double() - solve_threshold(x, budget, tau, cost)) / tau
    slope = torch.exp(-u.abs()) / (1 + torch.exp(-u.abs())) ** 2
    c = torch.ones_like(u) if cost is None else cost.double()
    return slope / tau * (v.double() - c * ((v.double() @ slope) / (c @ slope)))


# -- the budget -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("draw", DRAWS)
def test_the_sum_meets_the_budget(draw: str, tau: float) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 500, 70_000):
        values = DRAWS[draw](rng, n)
        for cost in (None, costs(n)):
            total = n if cost is None else float(cost.sum())
            for share in (1e-4, 0.5, 0.999):
                single = soft_topk(torch.tensor(values, dtype=torch.float32), share * total, tau, cost)
                double = soft_topk(torch.tensor(values), share * total, tau, cost)
                assert single.dtype == torch.float32
                assert double.dtype == torch.float64
                assert spent(single, cost) == pytest.approx(share * total, rel=1e-6)
                # scores of 1e5 and a temperature of 1e-5: the threshold itself has 1e-6 of it to choose from
                assert spent(double, cost) == pytest.approx(share * total, rel=1e-7 if n > 2 else 1e-6)


@bounded
@given(vectors, shares, temperatures, st.booleans())
def test_the_sum_meets_the_budget_to_1e_10(x: torch.Tensor, share: float, tau: float, weigh: bool) -> None:
    cost = costs(len(x)) if weigh else None
    budget = share * (len(x) if cost is None else float(cost.sum()))
    # a threshold near 5 is 9e-16 from the next float64, which is 9e-11 temperatures of 1e-5
    assert spent(soft_topk(x, budget, tau, cost), cost) == pytest.approx(budget, rel=2e-10 + 1e-14 / tau)


@pytest.mark.parametrize("tau", [0.1, 1e-5])
def test_ten_million_scores(tau: float) -> None:
    x = torch.randn(10_000_000, generator=torch.Generator().manual_seed(0))
    x[:9_000_000:3] = 0.25  # ties across the cut
    x.requires_grad_()
    s = soft_topk(x, 4e6, tau)
    assert spent(s, None) == pytest.approx(4e6, rel=1e-6)
    s.backward(torch.ones_like(s))
    assert float(x.grad.abs().max()) * tau <= 1e-6  # J 1 = 0


def test_ties_at_the_cut_share_what_is_left() -> None:
    x = torch.tensor([3.0] + [1.0] * 900 + [0.0] * 99)
    s = soft_topk(x, 451, 1e-5)
    assert s[0] == 1
    torch.testing.assert_close(s[1:901], torch.full((900,), 0.5))
    assert not s[901:].any()


@pytest.mark.parametrize("cost", [None, torch.tensor([1.0, 2, 3, 4])], ids=["counted", "weighted"])
def test_nothing_and_everything_are_exact_and_frozen(cost: torch.Tensor | None) -> None:
    total = 4.0 if cost is None else 10.0
    for budget, value in ((0.0, 0.0), (total, 1.0), (-1e-12, 0.0), (total * (1 + 1e-12), 1.0)):
        x = torch.randn(4, requires_grad=True)
        warm = Threshold(0.3)
        s = soft_topk(x, budget, 0.1, cost, warm=warm)
        assert (s == value).all()
        s.backward(torch.randn(4))
        assert not x.grad.any()
        assert math.isinf(warm.value)
        assert spent(soft_topk(x, total / 2, 0.1, cost, warm=warm), cost) == pytest.approx(total / 2)
    assert solve_threshold(torch.zeros(4), 0, 1.0) == math.inf
    assert solve_threshold(torch.zeros(4), 4, 1.0) == -math.inf


def test_free_units_take_part_without_spending() -> None:
    cost = torch.tensor([0.0, 1, 0, 1, 1])
    x = torch.tensor([2.0, 1, -2, 0, -1])
    s = soft_topk(x, 1.5, 0.5, cost)
    assert spent(s, cost) == pytest.approx(1.5)
    assert s[0] > s[1] > s[3] > s[4] > s[2]


# -- the threshold --------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_any_start_leads_to_the_same_masks(tau: float) -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cold = soft_topk(x, 200, tau)
    for start in (-1e9, -3.0, 0.0, 0.25, 3.0, 1e9, math.inf, math.nan):
        warm = Threshold(start)
        torch.testing.assert_close(soft_topk(x, 200, tau, warm=warm), cold, rtol=0, atol=1e-9)
        assert warm.value == pytest.approx(solve_threshold(x, 200, tau), abs=1e-9 + 50 * tau)


def test_a_flat_gap_has_one_threshold() -> None:
    """Across 0.9 = 90,000 temperatures the sum is exactly 3 in floats anywhere: the middle is returned."""
    x = torch.tensor([1.0, 0.95, 2.0, 0.05, -1.0], dtype=torch.float64)
    for start in (None, 0.06, 0.3, 0.5, 0.94, 5.0, -5.0):
        assert solve_threshold(x, 3, 1e-5, start=start) == 0.5
    weighted = torch.tensor([2.0, 3, 1, 7, 7])
    for start in (None, 0.06, 0.3, 0.94):
        assert solve_threshold(x, 6, 1e-5, weighted, start) == 0.5
    many = torch.cat([torch.linspace(1, 2, 50_000), torch.linspace(-2, 0, 50_000)])
    for start in (None, 0.1, 0.9):
        assert solve_threshold(many, 50_000, 1e-4, start=start) == 0.5


@pytest.mark.parametrize("n", [4, 100_000])
def test_a_frozen_mask_has_no_gradient(n: int) -> None:
    x = torch.cat([torch.linspace(0.9, 1, n // 2), torch.linspace(-1, -0.9, n // 2)]).requires_grad_()
    for budget in (0, n // 2, n):
        x.grad = None
        s = soft_topk(x, budget, 1e-5)
        assert set(s.tolist()) <= {0.0, 1.0}
        s.backward(torch.randn(n))
        assert torch.isfinite(x.grad).all()
        assert not x.grad.any()


@bounded
@given(vectors, shares, temperatures, st.floats(-3, 3))
def test_a_shift_of_all_scores_changes_nothing(
    x: torch.Tensor, share: float, tau: float, shift: float
) -> None:
    s, moved = soft_topk(x, share * len(x), tau), soft_topk(x + shift, share * len(x), tau)
    torch.testing.assert_close(moved, s, rtol=0, atol=1e-9 + 1e-14 / tau)


@bounded
@given(vectors, shares, st.sampled_from([10.0, 1.0, 0.1, 1e-2]), st.floats(0.1, 10))
def test_only_spread_over_temperature_matters(
    x: torch.Tensor, share: float, tau: float, factor: float
) -> None:
    s, scaled = soft_topk(x, share * len(x), tau), soft_topk(factor * x, share * len(x), factor * tau)
    torch.testing.assert_close(scaled, s, rtol=0, atol=1e-9)


@bounded
@given(vectors, shares, temperatures, st.booleans())
def test_order_is_preserved(x: torch.Tensor, share: float, tau: float, weigh: bool) -> None:
    cost = costs(len(x)) if weigh else None
    s = soft_topk(x, share * (len(x) if cost is None else float(cost.sum())), tau, cost)
    ordered = s[torch.argsort(x)]
    assert (ordered.diff() >= 0).all()
    apart = x.sort().values.diff() > 1e-3
    if tau >= 1:
        assert (ordered.diff()[apart] > 0).all()


# -- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [2.0, 0.3])
@pytest.mark.parametrize("weigh", [False, True])
def test_gradcheck(weigh: bool, tau: float) -> None:
    x = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    cost = costs(9) if weigh else None
    budget = 3.7 if cost is None else 0.4 * float(cost.sum())
    assert torch.autograd.gradcheck(lambda y: soft_topk(y, budget, tau, cost), (x,), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("tau", [10.0, 0.1, 1e-3, 1e-5])
@pytest.mark.parametrize("weigh", [False, True])
def test_gradients_of_long_float32_vectors(weigh: bool, tau: float) -> None:
    """Float32 passes lose nothing that matters, neither at low temperatures nor next to masks of 1."""
    generator = torch.Generator().manual_seed(3)
    n = 200_000
    cost = costs(n).float() if weigh else None
    for share in (0.4, 0.99):
        budget = share * (n if cost is None else float(cost.double().sum()))
        for v in (torch.randn(n, generator=generator), torch.ones(()).expand(n)):
            x = torch.randn(n, generator=generator, requires_grad=True)
            soft_topk(x, budget, tau, cost).backward(v)
            expected = exact_gradient(x, budget, tau, cost, v)
            room = 1e-6 * (0.25 / tau) * float((v if cost is None else v * cost).abs().max())
            assert float((x.grad - expected).abs().max()) <= room


def test_gradients_on_the_kept_side_have_all_digits() -> None:
    """With s = 1 - 1e-9 in float32 a rounded s has no slope, but its gradient is as real as the other's."""
    x = torch.tensor([20.7, 0.1, -20.7], requires_grad=True)
    v = torch.tensor([1.0, 0.0, -1.0])
    s = soft_topk(x, 1.5, 1.0)
    assert s[0] == 1
    s.backward(v)
    expected = exact_gradient(x, 1.5, 1.0, None, v)
    assert float(expected[0]) > 1e-10
    torch.testing.assert_close(x.grad.double(), expected, rtol=1e-6, atol=0)


def test_no_graph_is_kept() -> None:
    x = torch.randn(1000, requires_grad=True)
    cost = costs(1000)
    s = soft_topk(x, 700, 0.1, cost)
    assert [t.data_ptr() for t in s.grad_fn.saved_tensors] == [x.data_ptr(), cost.data_ptr()]
    (grad,) = torch.autograd.grad(s.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_views_and_scalar_upstreams() -> None:
    base = torch.randn(600, 2, generator=torch.Generator().manual_seed(4))
    column = base[:, 0]
    torch.testing.assert_close(soft_topk(column, 100, 0.1), soft_topk(column.contiguous(), 100, 0.1))
    x = column.clone().requires_grad_()
    cost = costs(600)
    soft_topk(x, 300, 0.1, cost).sum().backward()
    expected = exact_gradient(x, 300, 0.1, cost, torch.ones(600))
    torch.testing.assert_close(x.grad.double(), expected, rtol=1e-5, atol=1e-6)


def test_training_by_these_gradients_finds_the_units_that_pay() -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(5), requires_grad=True)
    pays = torch.randperm(200, generator=torch.Generator().manual_seed(6))[:80]
    value = torch.zeros(200).index_fill_(0, pays, 1.0)
    optimizer, warm = torch.optim.Adam([x], lr=0.1), Threshold()
    for step in range(150):
        optimizer.zero_grad()
        s = soft_topk(x, 80, 3 * 0.001 ** (step / 149), warm=warm)
        (-(s @ value)).backward()
        optimizer.step()
    assert set(torch.topk(x, 80).indices.tolist()) == set(pays.tolist())


# -- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("draw", DRAWS)
def test_rows_are_single_problems(draw: str, tau: float) -> None:
    rng = np.random.default_rng(0)
    for width in (1, 2, 4, 8, 16):
        x = torch.tensor(DRAWS[draw](rng, 12 * width)).reshape(12, width)
        for k in {0, 1, width // 2, width}:
            rows = soft_topk_rows(x, k, tau)
            scale = float(x.abs().max())
            assert float((rows.sum(1) - k).abs().max()) <= 1e-9 + 1e-15 * scale / tau
            single = torch.stack([soft_topk(row, k, tau) for row in x])
            torch.testing.assert_close(rows, single, rtol=0, atol=1e-9 + 1e-14 * scale / tau)


@pytest.mark.parametrize("tau", [2.0, 0.3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_gradcheck_of_rows(k: int, tau: float) -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    assert torch.autograd.gradcheck(lambda y: soft_topk_rows(y, k, tau), (x,), eps=1e-6, atol=1e-7)
    assert torch.equal(x, before)


def test_padding_gets_no_mask_and_no_gradient() -> None:
    inf = math.inf
    x = torch.tensor([[3.0, 1, 2, -inf], [1, -inf, -inf, -inf], [2, 1, -inf, -inf], [-inf] * 4])
    x.requires_grad_()
    for k, totals in ((2, [2, 1, 2, 0]), (4, [3, 1, 2, 0]), (0, [0, 0, 0, 0])):
        x.grad = None
        s = soft_topk_rows(x, k, 0.5)
        torch.testing.assert_close(s.sum(1), torch.tensor(totals, dtype=torch.float32))
        assert not s[x == -inf].any()
        s.backward(torch.randn(4, 4))
        assert torch.isfinite(x.grad).all()
        assert not x.grad[x == -inf].any()
        assert not x.grad[1:].any()  # nothing to choose there


def test_many_rows_in_float32() -> None:
    x = torch.randn(100_003, 4, generator=torch.Generator().manual_seed(8), requires_grad=True)
    s = soft_topk_rows(x, 2, 1e-2)
    assert float((s.detach().double().sum(1) - 2).abs().max()) < 1e-6
    v = torch.randn(100_003, 4, generator=torch.Generator().manual_seed(9))
    s.backward(v)
    for row in (0, 8191, 8192, 100_002):
        expected = exact_gradient(x[row], 2, 1e-2, None, v[row])
        torch.testing.assert_close(x.grad[row].double(), expected, rtol=1e-5, atol=1e-6)


# -- any monotone budget --------------------------------------------------------------------------


class Linear:
    def __init__(self, cost: np.ndarray, limit: float) -> None:
        self.cost, self.limit = cost, limit

    def value_and_gradient(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        return float(self.cost @ s), self.cost


class Chain:
    """MACs of a chain of layers, each with masks on both sides, and a first layer that always stays."""

    def __init__(self, widths: tuple[int, ...], share: float) -> None:
        self.parts = np.split(np.arange(sum(widths)), np.cumsum(widths)[:-1])
        ones = np.ones(sum(widths))
        self.limit = share * self.value_and_gradient(ones)[0]

    def value_and_gradient(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        kept = [s[p].sum() for p in self.parts]
        gradient = np.zeros_like(s)
        total = 20.0
        for left, right in zip(range(len(kept) - 1), range(1, len(kept)), strict=True):
            total += (left + 1) * kept[left] * kept[right]
            gradient[self.parts[left]] += (left + 1) * kept[right]
            gradient[self.parts[right]] += (left + 1) * kept[left]
        return float(total), gradient


class Latency:
    """Measured at 0, 8, 16 and 32 channels, linear in between."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def value_and_gradient(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        at, time_ = np.array([0, 8, 16, 32]), np.array([1.0, 2.0, 2.5, 7.0])
        width = s.sum()
        i = min(int(np.searchsorted(at, width, side="right")), 3)
        rate = (time_[i] - time_[i - 1]) / (at[i] - at[i - 1])
        return float(np.interp(width, at, time_)), np.full(s.size, rate)


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_a_linear_budget_is_the_weighted_operator(tau: float) -> None:
    x = torch.randn(60, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    cost = costs(60)
    s = soft_budget(x, Linear(cost.numpy(), 50.0), tau)
    torch.testing.assert_close(s, soft_topk(x, 50.0, tau, cost), rtol=0, atol=1e-8)


@pytest.mark.parametrize("tau", TEMPERATURES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_bilinear_budget_holds(share: float, tau: float) -> None:
    budget = Chain((10, 20, 30), share)
    warm = Threshold()
    x = torch.randn(60, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    for _ in range(3):
        s = soft_budget(x, budget, tau, warm)
        assert budget.value_and_gradient(s.numpy())[0] == pytest.approx(budget.limit, rel=1e-9)
        assert warm.value is not None
        x = x + 0.1
    single = soft_budget(x.float(), budget, tau, warm)
    assert single.dtype == torch.float32
    assert budget.value_and_gradient(single.double().numpy())[0] == pytest.approx(budget.limit, rel=1e-6)


def test_a_general_budget_is_asked_a_few_times_only() -> None:
    """Also at a low temperature, where the scores that move leave Newton's method without a slope."""
    budget = Chain((100, 200, 200), 0.4)
    asked, warm = 0, Threshold()
    measure = budget.value_and_gradient

    def counted(s: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal asked
        asked += 1
        return measure(s)

    budget.value_and_gradient = counted
    x = torch.randn(500, generator=torch.Generator().manual_seed(14))
    for step in range(21):
        x = x + 0.05 * torch.randn(500, generator=torch.Generator().manual_seed(step))
        soft_budget(x, budget, 1e-4, warm)
        if step == 0:
            asked = 0
    assert asked / 20 < 11


@pytest.mark.parametrize("tau", [2.0, 0.3])
def test_gradcheck_of_general_budgets(tau: float) -> None:
    x = torch.randn(9, generator=torch.Generator().manual_seed(12), dtype=torch.float64, requires_grad=True)
    chain = Chain((2, 3, 4), 0.4)
    assert torch.autograd.gradcheck(lambda y: soft_budget(y, chain, tau), (x,), eps=1e-6, atol=1e-6)


def test_a_latency_table_is_a_budget() -> None:
    x = torch.randn(32, generator=torch.Generator().manual_seed(13), requires_grad=True)
    s = soft_budget(x, Latency(2.25), 0.1)
    assert spent(s, None) == pytest.approx(12, rel=1e-6)
    s.backward(torch.ones(32))
    assert float(x.grad.abs().max()) < 1e-5  # equal rates: J 1 = 0


def test_the_ends_of_a_general_budget() -> None:
    x = torch.randn(60)
    chain = Chain((10, 20, 30), 1.0)
    assert (soft_budget(x, chain, 0.1) == 1).all()
    chain.limit = 20.0  # what stays at least
    s = soft_budget(x, chain, 0.1)
    assert float(s.max()) < 1e-3
    assert chain.value_and_gradient(s.double().numpy())[0] == pytest.approx(20, rel=1e-9)
    assert not soft_budget(x, Linear(np.ones(60), 0.0), 0.1).any()
    for limit in (19.0, 1e6):
        chain.limit = limit
        with pytest.raises(ValueError, match="out of reach: these units cost from 20 to"):
            soft_budget(x, chain, 0.1)


# -- hard selection -------------------------------------------------------------------------------


def one_by_one(x: np.ndarray, budget: float, cost: np.ndarray, keep: np.ndarray) -> np.ndarray:
    kept, room = keep.copy(), budget - cost[keep].sum()
    for i in np.argsort(-x, kind="stable"):
        if not kept[i] and cost[i] <= room + 1e-9:
            kept[i] = True
            room -= cost[i]
    return kept


@bounded
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.booleans()), min_size=1, max_size=25),
    st.floats(0, 1),
)
def test_hard_selection_is_the_greedy_one(units: list[tuple[int, int, bool]], share: float) -> None:
    x, cost, keep = (np.array(column) for column in zip(*units, strict=True))
    keep = keep.astype(bool)
    forced, total = float(cost[keep].sum()), float(cost.sum())
    budget = forced + share * (total - forced)
    kept = hard_topk(x, budget, cost, keep)
    assert kept.dtype == bool
    assert np.array_equal(kept, one_by_one(x, budget, cost.astype(float), keep))
    assert cost[kept].sum() <= budget + 1e-9
    assert kept[keep].all()


def test_hard_selection_counts_stably_and_forgives_rounding() -> None:
    assert hard_topk(np.array([1.0, 2, 2, 2, 0]), 2).tolist() == [False, True, True, False, False]
    assert hard_topk(np.arange(10.0), (1 - 0.9) * 10).sum() == 1  # 0.9999999999999998
    assert hard_topk(np.arange(3.0), 2.5).sum() == 2
    assert hard_topk(np.zeros(0), 0).size == 0


@bounded
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=30, unique=True), st.data())
def test_soft_masks_tend_to_the_hard_selection(values: list[int], data: st.DataObject) -> None:
    x = np.array(values, float)
    k = data.draw(st.integers(0, x.size))
    soft = soft_topk(torch.tensor(x), k, 1e-2).numpy()
    assert np.array_equal(soft > 0.5, hard_topk(x, k))
    assert np.abs(soft - hard_topk(x, k)).max() < 1e-6


def test_hard_selection_of_a_million_units_is_quick() -> None:
    rng = np.random.default_rng(0)
    x, cost = rng.standard_normal(1_000_000), rng.integers(1, 400, 1_000_000)
    start = time.perf_counter()
    kept = hard_topk(x, 0.5 * cost.sum(), cost)
    assert time.perf_counter() - start < 10
    assert 0.5 * cost.sum() - cost[kept].sum() < 1


def test_share_of_undecided_masks() -> None:
    assert undecided(torch.tensor([0.0, 0.04, 0.06, 0.5, 0.94, 0.96, 1.0, 1.0])) == 3 / 8
    assert undecided(torch.zeros(0)) == 0


# -- bad arguments --------------------------------------------------------------------------------

X = torch.zeros(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: soft_topk(X, 2, 0), "temperature is 0"),
        (lambda: soft_topk(X, 2, -1.0), "temperature is -1"),
        (lambda: soft_topk(X, 2, math.nan), "temperature is nan"),
        (lambda: soft_topk(X, 2, math.inf), "temperature is inf"),
        (lambda: soft_topk(X, 4.1, 1), "budget of 4.1 is out of reach: give one from 0 to 4"),
        (lambda: soft_topk(X, -1, 1), "budget of -1 is out of reach"),
        (lambda: soft_topk(X, math.nan, 1), "budget of nan is out of reach"),
        (lambda: soft_topk(torch.tensor([1.0, math.nan]), 1, 1), "infinite or not a number"),
        (lambda: soft_topk(torch.tensor([1.0, math.inf]), 1, 1), "infinite or not a number"),
        (lambda: soft_topk(torch.tensor([1.0, -math.inf]), 1, 1), "infinite or not a number"),
        (lambda: soft_topk(torch.zeros(2, 2), 1, 1), r"shape \[2, 2\]"),
        (lambda: soft_topk(X.bfloat16(), 1, 1), "bfloat16 are too coarse"),
        (lambda: soft_topk(X, 1, 1, torch.ones(3)), "3 costs for 4 scores"),
        (lambda: soft_topk(X, 1, 1, torch.tensor([1.0, 1, -1, 1])), "negative or not finite"),
        (lambda: soft_topk(X, 1, 1, torch.tensor([1.0, 1, math.nan, 1])), "negative or not finite"),
        (lambda: solve_threshold(X, 5, 1), "out of reach"),
        (lambda: soft_topk_rows(torch.zeros(3, 4), 5, 1), "5 of every 4 cannot be kept"),
        (lambda: soft_topk_rows(torch.zeros(3, 4), 2, 0), "temperature is 0"),
        (lambda: soft_topk_rows(torch.full((3, 4), math.inf), 2, 1), "infinite or not a number"),
        (lambda: soft_topk_rows(X, 2, 1), r"shape \[4\]"),
        (lambda: soft_budget(X, Linear(np.ones(4), 2), 0), "temperature is 0"),
        (lambda: hard_topk(np.zeros(4), 5), "out of reach"),
        (lambda: hard_topk(np.array([math.nan]), 1), "not a number"),
        (lambda: hard_topk(np.zeros(2), 1, np.ones(3)), "one cost for each"),
        (lambda: hard_topk(np.zeros(2), 1, np.array([1, -1])), "negative or not finite"),
        (lambda: hard_topk(np.zeros(3), 1, keep=np.array([1, 1, 0], bool)), "must stay cost 2, over the bud"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
