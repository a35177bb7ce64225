"""Trained methods against their definitions: PDP, PaS, AWG, AC/DC, rounds, and one registered from outside."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="trained masks need torch")

import torch

import graphprune
from graphprune import Recipe, TrainingOptions
from graphprune.criteria import all_criteria
from graphprune.errors import OptionError
from graphprune.methods import TrainedMethod, all_trained, find_trained, searching
from graphprune.methods.registry import _METHODS, register
from graphprune.methods.stages import alternating, geometric, linear, rising
from graphprune.relaxation import Threshold
from graphprune.search.search import Search

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
BLOCKS: dict[str, Any] = {"structure": "block", "block": "16x8x1x1", "sparsity": 0.7}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def train(search: Search, steps: int, lr: float = 1e-3, each: Callable[[int], None] | None = None) -> Any:
    """So many steps of distillation."""
    optimizer = torch.optim.Adam(search.parameters(), lr=lr)
    search.module.train()
    for i in range(steps):
        if each is not None:
            each(i)
        loss = (search.module(batch(i)) - search.original(batch(i))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step(optimizer)
    return optimizer


# -- PDP ----------------------------------------------------------------------------------------------


def pdp(norms: torch.Tensor, keep: float, tau: float, cost: torch.Tensor | None = None) -> torch.Tensor:
    relax = find_trained("pdp").relax
    assert relax is not None
    return relax(norms, keep, tau, cost, Threshold())


def test_pdp_is_the_published_softmax() -> None:
    """exp(w^2 / tau) / (exp(w^2 / tau) + exp(t^2 / tau)), t^2 midway between the squares at the cut."""
    w = torch.tensor([0.9, 0.2, 0.6, 1.4, 0.5], dtype=torch.float64)
    squares = w.square() / w.square().std(correction=0)
    t = (squares[2] + squares[4]) / 2
    expected = torch.softmax(torch.stack([squares, t.expand(5)]) / 0.1, 0)[0]
    assert torch.allclose(pdp(w, 3, 0.1), expected, atol=1e-12)


def test_pdp_masks_sum_to_the_target_as_they_harden() -> None:
    w = torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    for keep in (40, 200, 390):
        off = [abs(float(pdp(w, keep, tau).sum()) - keep) for tau in (0.3, 0.03, 1e-6)]
        assert off[0] >= off[1] >= off[2]
        assert off[1] < 0.05 * len(w)
        assert off[2] < 0.5
    assert pdp(w, 400, 0.1).eq(1).all()
    assert pdp(w, 0, 0.1).eq(0).all()


def test_pdp_counts_costs() -> None:
    w = torch.tensor([4.0, 3.0, 2.0, 1.0])
    kept = pdp(w, 5.0, 1e-6, torch.tensor([2.0, 2.0, 2.0, 2.0], dtype=torch.float64)) > 0.5
    assert kept.tolist() == [True, True, False, False]


def test_pdp_gradient_is_steeper_at_the_threshold() -> None:
    """d(m w)/dw = m + (2 w^2 / tau) m (1 - m), the threshold held; tau is in standard deviations of w^2."""
    search = Search(RESNET, method="pdp", max_steps=4, init_temp=0.05, final_temp=0.05, **BLOCKS)
    train(search, 3)
    name, w = next(iter(search.masking.tensors.weights().items()))
    blocked = search.masking.units.blocking.blocked[0]
    assert blocked.weight.value.name == name
    gate = search.masking.units.gates[0]

    def masked() -> torch.Tensor:
        entries = search.masking.masks.expand(search.masking.masks.soft())
        return (w.view(gate.split) * entries[torch.from_numpy(gate.entries)]).view(w.shape)

    direction = torch.randn(w.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((masked() * direction).sum(), w)
    tau = search.temperature
    with torch.no_grad():
        x = search.masking.masks.competing()[blocked.own].double()
        scale = x[~torch.from_numpy(search.masking.masks.floors[blocked.own])].square().std(correction=0)
        m = torch.from_numpy(blocked.expand(search.masking.masks.soft()[blocked.own].double().numpy()))
        sums = torch.from_numpy(blocked.sums((direction * w).double().numpy()))
        size = torch.from_numpy(blocked.sizes().astype(float))
        soft = search.masking.masks.soft()[blocked.own].double()
        slope = soft * (1 - soft) / tau / scale * 2 / size * sums
        expected = m * direction + torch.from_numpy(blocked.expand(slope.numpy())) * w
    assert torch.allclose(gradient.double(), expected, rtol=1e-3, atol=1e-5)
    assert float((slope.abs() > 1e-3).sum()) > 0


def test_pdp_keeps_the_shares_of_the_first_ranking() -> None:
    search = Search(RESNET, method="pdp", max_steps=20, **BLOCKS)
    units = search.masking.units
    keep = units.harden(units.scores(search.read)).keep
    for section in search.masking.masks.sections:
        assert section.target == pytest.approx(units.cost[section.units][keep[section.units]].sum())
    train(search, 20)
    assert search.masking.hard is not None
    for layer in np.unique(units.layers):
        assert search.masking.hard.keep[units.layers == layer].sum() == keep[units.layers == layer].sum()
    shares = [linear(i, 20, Recipe(budget_anneal=2 / 3), 0.3).share for i in range(20)]
    assert np.diff(shares[:12]) == pytest.approx(1.5 / 19)
    assert shares[-6:] == [1.0] * 6


def test_pdp_in_groups() -> None:
    relax = find_trained("pdp").relax_rows
    assert relax is not None
    x = torch.tensor([[3.0, 1.0, 2.0, 0.5], [1.0, 2.0, -torch.inf, -torch.inf]])
    s = relax(x, 2, 0.1)
    assert s[0] == pytest.approx(torch.sigmoid((x[0] ** 2 - 2.5) / 0.1))
    assert s[1, :2].min() > 0.99
    assert s[1, 2:].tolist() == [0, 0]


# -- PaS ----------------------------------------------------------------------------------------------


def test_pas_is_binary_and_straight_through() -> None:
    relax = find_trained("pas").relax
    assert relax is not None
    x = torch.tensor([0.9, 0.2, 0.6, 0.4], requires_grad=True)
    s = relax(x, 2.0, 1.0, None, Threshold())
    assert s.tolist() == [1, 0, 1, 0]
    upstream = torch.tensor([1.0, -2.0, 0.5, 0.0])
    (gradient,) = torch.autograd.grad(s, x, upstream)
    assert gradient == pytest.approx(
        upstream / upstream.square().mean().sqrt()
    )  # the budget holds: nothing pushes


def test_pas_pushes_by_the_derivative_of_its_penalty() -> None:
    """d(cost - target)^2 / ds is in proportion to the excess and to each unit's cost."""
    relax = find_trained("pas").relax
    assert relax is not None
    cost = torch.tensor([1.0, 1.0, 4.0, 2.0], dtype=torch.float64)
    upstream = torch.full((4,), 1e-3)

    def push(budget: float) -> torch.Tensor:
        x = torch.ones(4, requires_grad=True)
        (gradient,) = torch.autograd.grad(relax(x, budget, 1.0, cost, Threshold()), x, upstream)
        return gradient - 1  # equal gradients, scaled

    first, second = push(6.0), push(4.0)
    assert first / first[0] == pytest.approx(cost.float())
    assert (first > 0).all()
    assert second == pytest.approx(2 * first)


def test_pas_comes_back_from_gradients_that_exploded() -> None:
    """As where masks cut a network off for some steps: Adam took these for the scale of all later ones."""
    relax = find_trained("pas").relax
    assert relax is not None
    generator = torch.Generator().manual_seed(3)
    worth = torch.rand(200, generator=generator)
    x = torch.ones(200, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.02)
    memory, counts = Threshold(), []
    for step in range(200):
        s = relax(x, 60.0, 1.0, None, memory)
        scale = 1e4 if 20 <= step < 30 else 1.0
        optimizer.zero_grad()
        (-scale * worth * s).sum().backward()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        counts.append(float(s.detach().mean()))
    assert np.mean(counts[-50:]) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_pas_finds_its_budget_at_any_scale(kept: float, scale: float) -> None:
    """Units worth something lose the more loss the more of them go; no penalty weight is chosen by hand."""
    relax = find_trained("pas").relax
    assert relax is not None
    generator = torch.Generator().manual_seed(3)
    worth = torch.rand(200, generator=generator).square() * scale
    x = torch.ones(200, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.02)
    memory, counts = Threshold(), []
    for _ in range(400):
        s = relax(x, kept * 200, 1.0, None, memory)
        noise = torch.randn(200, generator=generator) * scale * 0.3
        optimizer.zero_grad()
        ((noise - worth) * s).sum().backward()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        counts.append(float(s.detach().mean()))
    assert np.mean(counts[-100:]) == pytest.approx(kept, abs=0.03)
    best = torch.argsort(worth, descending=True)[: int(kept * 200)]
    assert float((x.detach()[best] > 0.5).float().mean()) > 0.85


# -- AWG ----------------------------------------------------------------------------------------------


def test_awg_averages_weight_times_gradient() -> None:
    search = Search(RESNET, method="awg", max_steps=30, **BLOCKS)
    expected = np.zeros(search.masking.units.size)
    for i in range(4):
        loss = search.module(batch(i)).square().mean()
        search.module.zero_grad()
        loss.backward()
        products = {}
        for blocked in search.masking.units.blocking.blocked:
            w = search.masking.tensors.weights()[blocked.weight.value.name]
            products[blocked.first] = blocked.sums((w * w.grad).abs().detach().double().numpy())
        expected = 0.9 * expected + 0.1 * np.concatenate([products[k] for k in sorted(products)])
        search.step()
    found = search.masking.masks.logits.detach().numpy()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_awg_spares_sparse_layers() -> None:
    weigh = find_trained("awg").weigh
    assert weigh is not None
    found = weigh(torch.tensor([2.0, 2.0]), torch.tensor([0.5, 0.1]))
    assert found.tolist() == pytest.approx([4.0, 20.0])


def test_awg_prunes_in_equal_steps_and_for_good() -> None:
    stages = [rising(i, 60, Recipe(rounds=5), 0.3) for i in range(60)]
    assert [s.share for s in stages[::10]] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    search = Search(RESNET, method="awg", max_steps=12, **BLOCKS)
    gone = np.zeros(search.masking.units.size, bool)

    def look(i: int) -> None:
        nonlocal gone
        masks = search.masking.held_masks()
        assert masks is not None
        assert not masks[gone].any()
        gone = masks == 0

    train(search, 12, each=look)
    assert search.masking.hard is not None
    assert not search.masking.hard.keep[gone].any()


def test_awg_says_when_gradients_are_gone() -> None:
    search = Search(RESNET, method="awg", max_steps=5, **BLOCKS)
    with pytest.raises(OptionError, match=r"call Search.step\(\) before zero_grad"):
        search.step()


# -- AC/DC --------------------------------------------------------------------------------------------


def test_acdc_alternates_and_ends_compressed() -> None:
    shares = [alternating(i, 80, Recipe(rounds=4), 0.3).share for i in range(80)]
    assert shares == [float((i // 10) % 2) for i in range(80)]


def test_acdc_weights_restart_from_zero_without_momentum() -> None:
    search = Search(RESNET, method="acdc", rounds=2, max_steps=16, **BLOCKS)
    optimizer = torch.optim.Adam(search.parameters(), lr=1e-3)
    search.module.train()
    blocked = search.masking.units.blocking.blocked[3]
    weight = search.masking.tensors.weights()[blocked.weight.value.name]
    released = None
    for i in range(16):
        before = search.masking.held_masks()
        loss = (search.module(batch(i)) - search.original(batch(i))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step(optimizer)
        after = search.masking.held_masks()
        if before is not None and after is not None and after.mean() > before.mean():
            assert released is None
            released = torch.from_numpy(blocked.expand(before[blocked.own])) == 0
            assert released.any()
            assert weight[released].abs().max() == 0
            assert weight[~released].abs().min() > 0
            assert optimizer.state[weight]["exp_avg"].abs().max() == 0
            assert optimizer.state[weight]["exp_avg_sq"].abs().max() > 0
    assert released is not None
    assert weight[released].abs().max() > 0  # they came back to life in between
    assert search.finished


def test_acdc_keeps_what_its_last_phase_trained() -> None:
    search = Search(RESNET, method="acdc", rounds=2, max_steps=16, **BLOCKS)
    train(search, 15)
    last = search.masking.held_masks()
    search.harden()
    assert last is not None
    assert search.masking.hard is not None
    assert np.array_equal(search.masking.hard.keep, last > 0)


# -- rounds -------------------------------------------------------------------------------------------


def test_rounds_prune_to_the_same_share_of_what_is_left() -> None:
    kept = 0.2
    shares = [geometric(i, 90, Recipe(rounds=4), kept).share for i in (0, 30, 60)]
    left = [1 - share * (1 - kept) for share in shares]
    assert left == pytest.approx([kept**0.25, kept**0.5, kept**0.75])
    assert geometric(0, 1, Recipe(rounds=1), kept).share == pytest.approx(1)


@pytest.mark.parametrize("method", ["magnitude", "snip", "synflow"])
def test_what_goes_in_a_round_stays_away(method: str) -> None:
    search = Search(RESNET, method=method, rounds=3, max_steps=8, batches=[(batch(0),)], **BLOCKS)
    kept: list[np.ndarray] = []

    def look(i: int) -> None:
        masks = search.masking.held_masks()
        assert masks is not None
        kept.append(masks > 0)

    train(search, 8, each=look)
    assert search.masking.hard is not None
    kept.append(search.masking.hard.keep)
    assert all((later <= earlier).all() for earlier, later in pairwise(kept))
    assert sorted({int(k.sum()) for k in kept}) == sorted({int(kept[i].sum()) for i in (0, 4, 8)})
    assert len({int(k.sum()) for k in kept}) == 3
    result = (search.finish(), search.result())[1]
    assert result.fidelity.holds
    assert result.plan.budget["achieved"] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("structure", ["channel", "block", "nm"])
@pytest.mark.parametrize("method", sorted(all_criteria()))
def test_one_round_without_training_is_the_criterion(method: str, structure: str) -> None:
    words: dict[str, Any] = {"channel": {"sparsity": 0.5}, "block": BLOCKS, "nm": {}}[structure]
    words = {**words, "structure": structure}
    if structure not in all_criteria()[method].structures or method == "bn-scale":
        with pytest.raises(
            OptionError, match=r"does not serve|needs BatchNormalization|bn-scale|scores whole channels"
        ):
            graphprune.prune(RESNET, method=method, **{**words, "structure": "nm", "sparsity": None})
        return
    direct = graphprune.prune(RESNET, method=method, **words)
    search = Search(RESNET, method=method, **words)
    search.finish()
    assert search.result().plan.removed == direct.plan.removed
    assert search.result().plan.blocks == direct.plan.blocks


def test_magnitude_with_training(tmp_path: Path) -> None:
    """--method magnitude --data ...: pruned at once (or in rounds), then trained on."""
    np.savez(
        tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32)
    )
    for rounds in (1, 2):
        recipe = Recipe(rounds=rounds, search_epochs=2, finetune_epochs=1, batch_size=8, threads=1)
        options = TrainingOptions(str(tmp_path / "x.npz"), recipe)
        result = graphprune.prune(RESNET, method="magnitude", sparsity=0.5, training=options)
        assert result.plan.weights == "trained"
        assert result.plan.budget["achieved"] == pytest.approx(0.5, abs=0.01)


# -- from outside -------------------------------------------------------------------------------------


def test_a_method_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file: a relaxation and a name. Search, file, plan, list and command line follow."""
    monkeypatch.setattr("graphprune.methods.registry._METHODS", dict(_METHODS))
    (tmp_path / "halves.py").write_text(
        "import torch\n"
        "from graphprune.methods import TrainedMethod, register\n\n"
        "def clipped(x, budget, tau, cost, memory):\n"
        "    count = min(int(budget / cost.mean()), len(x) - 1)\n"
        "    return (x - x.detach().sort(descending=True).values[count] + 0.5).clamp(0, 1)\n\n"
        "register(TrainedMethod(name='clipped', summary='a ramp', citation='nobody',\n"
        "                       relax=clipped, structures=('block',)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("halves")
    assert "clipped" in all_trained()
    assert isinstance(searching("clipped"), TrainedMethod)
    search = Search(RESNET, method="clipped", max_steps=4, **{**BLOCKS, "sparsity": 0.5})
    train(search, 4)
    plan, _ = search.finish()
    assert plan.method == "clipped"
    assert plan.fidelity["holds"]
    assert plan.budget["achieved"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(OptionError, match="does not serve --structure channel: it is for block"):
        Search(RESNET, method="clipped", sparsity=0.5)
    with pytest.raises(ValueError, match="there is a trained method 'clipped'"):
        register(find_trained("clipped"))
    with pytest.raises(OptionError, match="did you mean 'clipped'"):
        Search(RESNET, method="cliped", sparsity=0.5)
