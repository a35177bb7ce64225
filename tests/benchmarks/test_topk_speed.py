"""What the differentiable top-k costs: ``make bench`` prints the figures and fails where a promise is broken.

Forward and backward in the middle of training: every call sees scores moved by a step of the mask optimiser
and starts at the threshold of the call before. Against one elementwise sigmoid, forward and backward, of the
same vector. The two alternate in one run on one thread; the figure is the ratio of the medians of processor
time, which other work on the machine disturbs less than the clock on the wall.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("torch", reason="soft masks need torch")

import torch

from graphprune.relaxation import Threshold, soft_topk, soft_topk_rows

TAU = 0.1
STEP = 0.02


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def topk_and_sigmoid(n: int, pairs: int, *, weighted: bool = False, tau: float = TAU) -> tuple[float, float]:
    """Median seconds of either, float32, k = n / 2."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(n, generator=generator)
    moved = [first + STEP * torch.randn(n, generator=generator).sign() + STEP * i for i in range(3)]
    for x in moved:
        x.requires_grad_()
    v = torch.randn(n, generator=generator)
    cost = torch.rand(n, generator=generator) + 0.5 if weighted else None
    budget = n / 2 if cost is None else float(cost.double().sum()) / 2
    warm = Threshold()

    def topk(x: torch.Tensor) -> None:
        x.grad = None
        soft_topk(x, budget, tau, cost, warm=warm).backward(v)

    def sigmoid(x: torch.Tensor) -> None:
        x.grad = None
        torch.sigmoid(x).backward(v)

    topk(moved[0])
    sigmoid(moved[0])
    times = [
        (seconds(lambda x=moved[i % 3]: topk(x)), seconds(lambda x=moved[i % 3]: sigmoid(x)))
        for i in range(pairs)
    ]
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


def test_a_million_scores() -> None:
    topk, sigmoid = topk_and_sigmoid(1_000_000, 40)
    print(
        f"\ntop-k of 1e6 scores, forward + backward: {topk * 1e3:.1f} ms, "
        f"{topk / sigmoid:.1f} sigmoids of {sigmoid * 1e3:.2f} ms (promise: 12)"
    )
    assert topk / sigmoid < 12


def test_a_million_weighted_scores() -> None:
    topk, sigmoid = topk_and_sigmoid(1_000_000, 20, weighted=True)
    print(f"\nweighted top-k of 1e6 scores: {topk * 1e3:.1f} ms, {topk / sigmoid:.1f} sigmoids")


def test_a_million_scores_at_a_low_temperature() -> None:
    """Where most of exp() would be denormal numbers, which are many times slower."""
    topk, sigmoid = topk_and_sigmoid(1_000_000, 10, tau=0.003)
    print(f"\ntop-k of 1e6 scores at temperature 0.003: {topk * 1e3:.1f} ms, {topk / sigmoid:.1f} sigmoids")
    assert topk / sigmoid < 25


def test_ten_million_scores() -> None:
    topk, sigmoid = topk_and_sigmoid(10_000_000, 5)
    print(f"\ntop-k of 1e7 scores: {topk * 1e3:.0f} ms, {topk / sigmoid:.1f} sigmoids (promise: 12)")
    assert topk / sigmoid < 12


def test_the_units_of_a_network() -> None:
    topk, sigmoid = topk_and_sigmoid(500, 500)
    print(f"\ntop-k of 500 scores: {topk * 1e3:.2f} ms, {topk / sigmoid:.0f} sigmoids (promise: 0.5 ms)")
    assert topk < 5e-4


def test_a_million_rows_of_four() -> None:
    x = torch.randn(1_000_000, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for _ in range(5):
        x.grad = None
        start = time.process_time()
        soft_topk_rows(x, 2, TAU).backward(torch.ones_like(x))
        found.append(time.process_time() - start)
    seconds_each = statistics.median(found)
    print(f"\n2 of 4 in 1e6 rows, forward + backward: {seconds_each * 1e3:.0f} ms (promise: 1 s)")
    assert seconds_each < 1
