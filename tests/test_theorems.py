"""The paper's statements about the operator and its training, each as a test.

Notation as there: f_tau(m) are soft masks of logits m, k units are kept, L is the loss of w * f_tau(m).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch", reason="soft masks need torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.relaxation import hard_topk, soft_topk

bounded = settings(max_examples=80, deadline=None)
seeds = st.integers(0, 10_000)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def top(m: torch.Tensor, k: int) -> torch.Tensor:
    return torch.from_numpy(hard_topk(m.detach().numpy(), k)).double()


def gap(m: torch.Tensor, k: int) -> float:
    ordered = m.sort(descending=True).values
    return float(ordered[k - 1] - ordered[k])


def distance_bound(n: int, k: int, gap: float, tau: float) -> float:
    """Of f_tau(m) to Topk(m), in the 1-norm (theorem 2.1 made quantitative)."""
    return 2 * math.sqrt(k * (n - k)) * math.exp(-gap / (2 * tau))


class Quadratic:
    """L(w) = (w - a)' Q (w - a) / 2 with Q positive definite."""

    def __init__(self, n: int, seed: int) -> None:
        root = normal(seed, n, n)
        self.q = root @ root.T + 0.1 * torch.eye(n, dtype=torch.float64)
        self.a = normal(seed + 1, n)

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        return (w - self.a) @ self.q @ (w - self.a) / 2

    def best_on(self, support: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The least loss of weights that are 0 off ``support`` (bool), and those weights."""
        w = torch.zeros_like(self.a)
        if support.any():
            inside = self.q[support][:, support]
            w[support] = torch.linalg.solve(inside, (self.q @ self.a)[support])
        return float(self(w)), w


# -- theorem 2.1: f_tau tends to Topk --------------------------------------------------------------


@bounded
@given(seeds, st.integers(2, 40), st.data(), st.sampled_from([3.0, 0.5, 0.1, 0.02, 1e-3]))
def test_2_1_distance_to_topk_is_bounded(seed: int, n: int, data: st.DataObject, tau: float) -> None:
    k = data.draw(st.integers(1, n - 1))
    m = normal(seed, n)
    distance = float((soft_topk(m, k, tau) - top(m, k)).abs().sum())
    assert distance <= distance_bound(n, k, gap(m, k), tau) + 1e-9


def test_2_1_convergence_as_the_temperature_falls() -> None:
    m = normal(3, 200)
    distances = [float((soft_topk(m, 70, tau) - top(m, 70)).abs().sum()) for tau in np.logspace(1, -5, 13)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(distances))
    assert distances[0] > 50
    assert distances[-1] < 1e-9


@pytest.mark.parametrize(("copies", "left"), [(2, 1), (9, 4), (1000, 1)])
def test_2_1_ties_across_the_cut_tend_to_equal_shares(copies: int, left: int) -> None:
    """Without a strict gap there is no convergence to 0/1: r equal logits that need q places get q / r."""
    above, below = 3, 5
    m = torch.tensor([2.0] * above + [1.0] * copies + [0.0] * below, dtype=torch.float64)
    s = soft_topk(m, above + left, 1e-3)
    assert (s[:above] == 1).all()
    torch.testing.assert_close(s[above : above + copies], torch.full((copies,), left / copies).double())
    assert float(s[above + copies :].max()) < 1e-12
    hard = top(m, above + left)  # hardening cuts by stable order
    assert hard[: above + left].all()
    assert not hard[above + left :].any()


# -- proposition 2.2: the Jacobian -----------------------------------------------------------------


@bounded
@given(seeds, st.integers(2, 12), st.floats(0.05, 0.95), st.sampled_from([5.0, 1.0, 0.2]))
def test_2_2_jacobian(seed: int, n: int, share: float, tau: float) -> None:
    m = normal(seed, n)
    s = soft_topk(m, share * n, tau)
    jacobian = torch.autograd.functional.jacobian(lambda x: soft_topk(x, share * n, tau), m)
    slope = s * (1 - s)
    expected = (torch.diag(slope) - torch.outer(slope, slope) / slope.sum()) / tau
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-12 / tau)
    torch.testing.assert_close(jacobian, jacobian.T, rtol=0, atol=1e-12 / tau)
    assert float(jacobian.sum(0).abs().max()) < 1e-12 / tau
    assert float(torch.linalg.eigvalsh((jacobian + jacobian.T) / 2).min()) > -1e-12 / tau
    assert float(jacobian.abs().max()) <= 1 / (4 * tau) + 1e-12


@bounded
@given(seeds, st.integers(2, 12), st.floats(0.05, 0.95))
def test_2_2_jacobian_under_costs(seed: int, n: int, share: float) -> None:
    m, cost = normal(seed, n), normal(seed + 1, n).abs() + 0.1
    budget = share * float(cost.sum())
    slope = soft_topk(m, budget, 0.5, cost)
    slope = slope * (1 - slope)
    jacobian = torch.autograd.functional.jacobian(lambda x: soft_topk(x, budget, 0.5, cost), m)
    expected = (torch.diag(slope) - torch.outer(slope, cost * slope) / (cost @ slope)) / 0.5
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-11)
    assert float((cost @ jacobian).abs().max()) < 1e-11
    assert float(jacobian.sum(1).abs().max()) < 1e-11


# -- theorem 2.3: learning masks solves the sparse problem ------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [2, 5, 8])
def test_2_3_masks_reach_the_sparse_optimum(n: int, seed: int) -> None:
    """min over (w, m) of L(w * Topk(m)) is min over ||w||_0 <= k of L(w), by enumeration."""
    loss = Quadratic(n, seed)
    for k in range(1, n + 1):
        supports = [
            torch.tensor([i in chosen for i in range(n)])
            for size in range(k + 1)
            for chosen in itertools.combinations(range(n), size)
        ]
        sparse = min(loss.best_on(support)[0] for support in supports)
        # Topk(m) takes the value of every k-subset (let m be its indicator), and no other value
        masks = {tuple(top(support.double(), k).tolist()) for support in supports if support.sum() == k}
        assert len(masks) == math.comb(n, k)
        assert {tuple(top(normal(i, n), k).tolist()) for i in range(50)} <= masks
        masked = min(loss.best_on(torch.tensor(mask) > 0)[0] for mask in masks)
        assert masked == pytest.approx(sparse, abs=1e-12)


# -- theorem 2.4: at low temperature the optimum beats every other point -----------------------------


@pytest.mark.parametrize("seed", range(10))
def test_2_4_the_optimum_wins_below_some_temperature(seed: int) -> None:
    """L = ||A w - b|| is Lipschitz, so that its value at soft masks is as near as theorem 2.1 says."""
    n, k = 7, 3
    a, b = normal(seed, n + 2, n), normal(seed + 100, n + 2)
    lipschitz = float(torch.linalg.matrix_norm(a, 2))

    def loss(w: torch.Tensor) -> float:
        return float(torch.linalg.vector_norm(a @ w - b))

    best, w_best, m_best = math.inf, torch.zeros(n), torch.zeros(n)
    for chosen in itertools.combinations(range(n), k):
        w = torch.zeros(n, dtype=torch.float64)
        w[list(chosen)] = torch.linalg.lstsq(a[:, chosen], b).solution
        if loss(w) < best:
            best, w_best = loss(w), w
            m_best = (w != 0).double() + 0.1 * normal(seed + 200, n).tanh()
    for other in range(20):
        w, m = normal(1000 * seed + other, n), normal(1000 * seed + other + 500, n)
        excess = loss(w * top(m, k)) - best
        assert excess > 0

        def error(tau: float, w: torch.Tensor, m: torch.Tensor) -> float:
            return lipschitz * float(w.abs().max()) * distance_bound(n, k, gap(m, k), tau)

        tau = 10.0
        while error(tau, w_best, m_best) + error(tau, w, m) >= excess:
            tau *= 0.9
        for colder in (tau, tau / 2, tau / 10):
            at_best = loss(w_best * soft_topk(m_best, k, colder))
            assert abs(at_best - best) <= error(colder, w_best, m_best) + 1e-9
            assert at_best < loss(w * soft_topk(m, k, colder))


# -- theorem 2.5: at a fixed temperature dense minima stay ------------------------------------------


@pytest.mark.parametrize("tau", [5.0, 0.5, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_2_5_a_dense_minimum_is_stationary(seed: int, tau: float) -> None:
    """Since every s > 0, w = a / f_tau(m) reaches the dense minimiser a, and nothing pulls at w or m."""
    n, k = 12, 4
    loss = Quadratic(n, seed)
    m = normal(seed + 50, n).requires_grad_()
    w = (loss.a / soft_topk(m, k, tau).detach()).requires_grad_()
    value = loss(w * soft_topk(m, k, tau))
    value.backward()
    assert float(value.detach()) < 1e-20
    assert float(w.grad.abs().max()) < 1e-10
    assert float(m.grad.abs().max()) < 1e-10 / tau


def test_2_5_training_at_a_fixed_temperature_decides_nothing_and_a_falling_one_does() -> None:
    n, k = 12, 4
    loss = Quadratic(n, 0)
    undecided = {}
    for name, last in (("fixed", 0.5), ("falling", 1e-3)):
        m, w = (0.1 * normal(9, n)).requires_grad_(), torch.ones(n, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([m, w], lr=0.02)
        steps = 800
        for step in range(steps):
            tau = 0.5 * (last / 0.5) ** (step / (steps - 1))
            optimizer.zero_grad()
            loss(w * soft_topk(m, k, tau)).backward()
            optimizer.step()
        s = soft_topk(m.detach(), k, last)
        undecided[name] = int(((s > 0.01) & (s < 0.99)).sum())
    assert undecided["fixed"] >= 6
    assert undecided["falling"] == 0


# -- proposition 2.6 and table 1: what a falling temperature moves ------------------------------------


def effective_weight_rates(w: torch.Tensor, m: torch.Tensor, k: float, tau: float) -> torch.Tensor:
    """d(w f) / d tau as the proposition has it."""
    s = soft_topk(m, k, tau)
    slope = s * (1 - s)
    mean = (slope @ m) / slope.sum()
    return -(w * s) * (1 - s) * (m - mean) / tau**2


@bounded
@given(seeds, st.integers(2, 30), st.floats(0.1, 0.9), st.sampled_from([3.0, 1.0, 0.3]))
def test_2_6_rate_of_effective_weights(seed: int, n: int, share: float, tau: float) -> None:
    w, m = normal(seed, n), normal(seed + 1, n)
    step = 1e-4 * tau
    above, below = soft_topk(m, share * n, tau + step), soft_topk(m, share * n, tau - step)
    measured = w * (above - below) / (2 * step)
    torch.testing.assert_close(
        effective_weight_rates(w, m, share * n, tau), measured, rtol=1e-4, atol=1e-5 / tau
    )


TABLE_1 = {
    # case: weight, logit over the mean of the undecided, does it move?
    "kept": (1.0, 3.0, False),
    "pruned": (1.0, -3.0, False),
    "undecided, but its weight is 0": (0.0, 0.04, False),
    "undecided, in the middle": (1.0, 0.0, False),
    "undecided and used, above": (1.0, 0.04, True),
    "undecided and used, below": (1.0, -0.04, True),
}


@pytest.mark.parametrize("case", TABLE_1)
def test_2_6_table_1_only_undecided_and_used_units_move(case: str) -> None:
    weight, logit, moves = TABLE_1[case]
    tau, k = 0.05, 5
    m = torch.tensor([logit, -logit, *([2.0] * 4), *([-2.0] * 4)], dtype=torch.float64)
    w = torch.full((10,), 1.0, dtype=torch.float64)
    w[0] = weight
    rate = float(effective_weight_rates(w, m, k, tau)[0])
    colder, here = (float((w * soft_topk(m, k, t))[0]) for t in (0.9 * tau, tau))
    if moves:
        assert abs(colder - here) > 0.01
        assert math.copysign(1, rate) == -math.copysign(1, logit)  # away from the middle as tau falls
        assert (colder - here) * logit > 0
    else:
        assert abs(rate) < 1e-9
        assert abs(colder - here) < 1e-9


def test_2_6_a_falling_temperature_shakes_a_dense_minimum() -> None:
    """At the stationary point of theorem 2.5 the loss is 0; a lower temperature moves the undecided units."""
    loss = Quadratic(12, 1)
    m = normal(60, 12)
    w = loss.a / soft_topk(m, 4, 0.5)
    assert float(loss(w * soft_topk(m, 4, 0.5))) < 1e-20
    assert float(loss(w * soft_topk(m, 4, 0.4))) > 1e-3


# -- appendix E: the delay of straight-through estimates ----------------------------------------------


def straight_through(m: torch.Tensor, k: int, tau: float) -> torch.Tensor:
    return top(m, k) + m - m.detach()


def mask_losses(
    operator: Callable[[torch.Tensor, int, float], torch.Tensor], steps: int
) -> tuple[list[float], list[float]]:
    """Losses, and the lead of unit 0 over unit 2 that should replace it, over steps of plain descent on m.

    L = ||w * mask - a||^2 / 2 with w = 1, a = (0, 1, 1, 0) and k = 2.
    """
    a = torch.tensor([0.0, 1, 1, 0], dtype=torch.float64)
    m = torch.tensor([1.005, 2.0, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
    losses, leads = [], []
    for _ in range(steps):
        loss = ((operator(m, 2, 0.3) - a) ** 2).sum() / 2
        (gradient,) = torch.autograd.grad(loss, m)
        losses.append(loss.item())
        leads.append((m[0] - m[2]).item())
        m = (m - 0.01 * gradient).detach().requires_grad_()
    return losses, leads


def test_e_straight_through_gradients_act_only_when_the_order_flips() -> None:
    losses, leads = mask_losses(straight_through, 60)
    flip = next(i for i, lead in enumerate(leads) if lead < 0)
    assert flip == 26  # the lead of .505 shrinks by .02 a step
    assert all(later < earlier for earlier, later in itertools.pairwise(leads[: flip + 1]))
    assert losses[:flip] == [1.0] * flip
    assert losses[flip:] == [0.0] * (len(losses) - flip)


def test_e_soft_masks_react_at_once() -> None:
    losses, leads = mask_losses(soft_topk, 60)
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert leads[1] < leads[0]
    assert losses[0] - losses[1] > 1e-3
