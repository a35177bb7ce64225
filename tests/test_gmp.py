"""Gradual magnitude pruning: at every step the largest units of today's weights, as many as the cubic budget keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="trained masks need torch")

import torch

from graphprune.hard_topk import hard_topk
from graphprune.recipes.schedules import budget_share
from graphprune.search.search import Search

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
STEPS = 8


def step(search: Search, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = search.module(torch.randn(4, 3, 32, 32, generator=generator)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    search.step()


@pytest.mark.parametrize(
    "words",
    [
        {"structure": "block", "sparsity": 0.7},
        {"structure": "channel", "sparsity": 0.5, "multiple_of": 1},
        {"structure": "channel", "macs": 0.5, "multiple_of": 1},
    ],
    ids=["block", "channel", "macs"],
)
def test_the_budget_tightens_and_holds(words: dict) -> None:
    search = Search(RESNET, method="gmp", max_steps=STEPS, **words)
    assert search.masking.parameters() == []
    optimizer = torch.optim.Adam(search.parameters(), lr=1e-3)
    search.module.train()
    kept = []
    for number in range(STEPS):
        masks = search.masking.masks.soft().detach().double().numpy()
        assert set(np.unique(masks)) <= {0.0, 1.0}
        kept.append(masks.mean())
        step(search, optimizer, number)
    assert kept[0] == 1
    assert (np.diff(kept) <= 1e-9).all()
    plan, _ = search.finish()
    assert plan.method == "gmp"
    assert plan.fidelity["holds"]
    wanted = words.get("sparsity", words.get("macs"))
    assert plan.budget["achieved"] == pytest.approx(wanted, abs=0.015)


def test_masks_are_the_largest_of_today() -> None:
    """A block whose weights grow comes back."""
    search = Search(RESNET, method="gmp", structure="block", sparsity=0.7, max_steps=STEPS, budget_anneal=0.5)
    optimizer = torch.optim.SGD(search.parameters(), lr=0.0)
    for number in range(3):
        step(search, optimizer, number)
    units = search.masking.units
    total = units.blocking.total
    share = budget_share(search.steps, STEPS, 0.5)
    budget = total - share * 0.7 * total

    def expected() -> np.ndarray:
        scores = units.scores(search.read)
        floors = units.floors(scores)
        return hard_topk(
            scores.astype(np.float32),
            budget,
            units.blocking.cost,
            floors,
        )

    masks = search.masking.masks.soft().numpy() > 0.5
    assert np.array_equal(masks, expected())
    lost = int(np.flatnonzero(~masks)[0])
    blocked = next(b for b in units.blocking.blocked if b.first <= lost < b.first + b.count)
    entries = np.zeros(blocked.count)
    entries[lost - blocked.first] = 1
    with torch.no_grad():
        search.weights()[blocked.weight.value.name][torch.from_numpy(blocked.expand(entries) > 0)] += 1.0
    search._advance()
    assert search.masking.masks.soft()[lost] == 1
