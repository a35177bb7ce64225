"""Masks in a trainable module: what they gate, what they cost, and that hard masks equal the pruned file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="trained masks need torch")

import torch
from conftest import small_network

from graphprune import analyze
from graphprune.api import load
from graphprune.budget import Budget
from graphprune.choosing import PruneOptions
from graphprune.contractions import contraction_weights
from graphprune.errors import BudgetError, ConversionError, OptionError
from graphprune.search.channels import ChannelUnits, ModelCurve
from graphprune.search.initial import input_norms
from graphprune.search.search import Search
from graphprune.search.unit_masking import UnitMasking
from sample_models import export
from tests.marks import slow

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory):
    found: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in found:
            found[name] = export(name, tmp_path_factory.mktemp("search") / f"{name}.onnx")
        return found[name]

    return get


def train_a_little(search: Search, steps: int, seed: int = 0) -> None:
    """A loop of one's own: any loss, any optimiser."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [v.shape for v in search.imported.graph.inputs]
    optimizer = torch.optim.Adam(search.parameters(), lr=1e-3)
    search.module.train()
    for _ in range(steps):
        x = [torch.randn(2, *s[1:], generator=generator) for s in shapes]
        outputs = search.module(*x)
        tensors = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        loss = sum(t.square().mean() for t in tensors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step()


@pytest.mark.parametrize("kind", ["sparsity", "params", "macs"])
def test_trained_masks_equal_the_pruned_file(kind: str) -> None:
    search = Search(RESNET, **{kind: 0.5}, max_steps=12, multiple_of=1)
    train_a_little(search, 12)
    plan, module = search.finish()
    assert plan.fidelity["holds"]
    assert plan.fidelity["module"] <= 1e-4
    assert plan.weights == "trained"
    assert plan.budget["achieved"] == pytest.approx(0.5, abs=0.01)
    masks = module.masks()
    assert set(masks.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "name",
    slow(
        ["mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "googlenet", "bisenet_v2"],
        {"shufflenet_v1", "shufflenet_v2", "googlenet"},
    ),
)
def test_samples_train_and_prune(name: str, sample) -> None:
    search = Search(sample(name), sparsity=0.5, max_steps=3)
    train_a_little(search, 3)
    plan, _ = search.finish()
    assert plan.fidelity["holds"]
    assert plan.fidelity["module"] <= 1e-4
    assert plan.budget["achieved"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("attention", ["heads", "width", "both"])
@pytest.mark.parametrize("inexact", [False, True])
def test_attention_trains_by_heads_and_widths(attention: str, inexact: bool, sample) -> None:
    search = Search(sample("vit"), sparsity=0.4, max_steps=3, attention=attention, allow_inexact=inexact)
    train_a_little(search, 3)
    plan, _ = search.finish()
    assert plan.fidelity["holds"]
    assert plan.fidelity["module"] <= 1e-4


@pytest.mark.parametrize("block", ["16x8x1x1", "-1x1x1x1", "5x3x2x2", "1x1x1x1"])
def test_blocks_equal_the_file(block: str) -> None:
    search = Search(RESNET, structure="block", block=block, sparsity=0.6, max_steps=6)
    train_a_little(search, 6)
    plan, _ = search.finish()
    assert plan.fidelity["holds"]
    assert plan.fidelity["module"] <= 1e-4
    biggest = max(np.prod(b["shape"]) for b in plan.blocks.values())
    total = search.masking.units.blocking.total
    assert plan.budget["achieved"] == pytest.approx(0.6, abs=biggest / total)


@pytest.mark.parametrize("nm", ["2:4", "1:4", "3:5"])
def test_rows_equal_the_file(nm: str) -> None:
    search = Search(RESNET, structure="nm", nm=nm, max_steps=6, temp_unit="std")
    train_a_little(search, 6)
    plan, _ = search.finish()
    result = search.result()
    assert plan.fidelity["holds"]
    assert plan.fidelity["module"] <= 1e-4
    keep, of = (int(p) for p in nm.split(":"))
    weights = {t.name: t for t in result.model.to_onnx().graph.initializer}
    for name, entry in plan.patterns.items():
        from onnx import numpy_helper

        rows = np.moveaxis(numpy_helper.to_array(weights[name]), entry["axis"], -1)
        inputs = rows.shape[-1]
        for start in range(0, inputs, of):
            assert (np.count_nonzero(rows[..., start : start + of], axis=-1) <= keep).all()


def test_rows_of_a_transformer(sample) -> None:
    """2:4 in every projection of a ViT: matrices [inputs, outputs] have their groups along the inputs."""
    search = Search(sample("vit"), structure="nm", nm="2:4", max_steps=3)
    train_a_little(search, 3)
    plan, _ = search.finish()
    assert plan.fidelity["holds"]
    assert plan.fidelity["module"] <= 1e-4
    assert plan.fidelity["patterned"] == len(plan.patterns) > 15
    assert plan.budget["achieved"] == pytest.approx(0.5, abs=0.001)


def test_soft_masks_meet_the_budget_at_every_step() -> None:
    for kind in ("sparsity", "params", "macs"):
        search = Search(RESNET, **{kind: 0.4}, max_steps=20, budget_anneal=0.0, snap=0.0)
        units = search.masking.units
        (section,) = units.sections
        for _ in range(5):
            s = search.masking.masks.soft().detach().double().numpy()
            if section.curve is None:
                held = float(section.cost @ s[section.units])
            else:
                held = section.curve.value_and_gradient(s)[0]
            assert held == pytest.approx(section.target, rel=1e-6)
            train_a_little(search, 1)


@pytest.mark.parametrize("kind", ["params", "macs"])
def test_soft_costs_are_the_engine_s_counts(kind: str) -> None:
    """At 0/1 masks the curve is the exact count; its slope is that of finite differences."""
    analysis = analyze(RESNET)
    units = ChannelUnits(analysis, PruneOptions(Budget(kind, 0.5), allocation="global"))
    curve = ModelCurve(units, kind)
    rng = np.random.default_rng(0)
    keep = rng.random(units.size) < 0.7
    alive = np.ones(units.entries, bool)
    alive[units.slots] = keep
    count = analysis.cost.params(alive) if kind == "params" else analysis.cost.macs(alive)
    assert curve.value_and_gradient(keep.astype(float))[0] == pytest.approx(count, rel=1e-9)
    s = rng.random(units.size)
    value, slope = curve.value_and_gradient(s)
    for i in rng.integers(0, units.size, 5):
        moved = s.copy()
        moved[i] += 1e-4
        assert (curve.value_and_gradient(moved)[0] - value) / 1e-4 == pytest.approx(slope[i], rel=1e-3)


def test_mask_gradients_equal_finite_differences() -> None:
    """Through gates and the module, in float64."""
    torch.manual_seed(0)
    search = Search(load(small_network()), sparsity=0.5, max_steps=100, multiple_of=1, budget_anneal=0.0)
    search.module.double()
    masks = search.masking.masks
    masks.temperature = 0.7
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return search.module(x).square().sum()

    loss().backward()
    gradient = masks.logits.grad.clone()
    for i in range(0, gradient.numel(), 3):
        around = []
        for delta in (1e-5, -1e-5):
            with torch.no_grad():
                masks.logits[i] += delta
                around.append(float(loss()))
                masks.logits[i] -= delta
        assert (around[0] - around[1]) / 2e-5 == pytest.approx(float(gradient[i]), rel=1e-5, abs=1e-7)


def test_a_consumer_gate_is_the_gate_after_batchnorm() -> None:
    """BatchNorm cannot undo it: the output follows s, unlike a gate on the producer's weight."""
    search = Search(RESNET, sparsity=0.5, max_steps=10, budget_anneal=0.0)
    masks = search.masking.masks
    search.module.eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        masks.temperature = 10.0
        soft = search.module(x)
        masks.mode = "dense"
        dense = search.module(x)
    assert (soft - dense).abs().max() > 0.1 * dense.abs().max()


def test_every_gate_is_a_plain_product_in_the_graph() -> None:
    """The fx graph is rewritten; no layer is wrapped."""
    search = Search(RESNET, sparsity=0.5, max_steps=10)
    modules = [n for n, _ in search.module.named_children()]
    assert modules == ["masks"]
    calls = [n for n in search.module.graph.nodes if n.op == "call_module"]
    assert len(calls) == 1


def test_ratio_only_exclude_and_uniform() -> None:
    search = Search(
        RESNET, sparsity=0.4, max_steps=4, multiple_of=1, ratios={"stages.2.*": 0.25}, exclude=["stem*"]
    )
    train_a_little(search, 4)
    plan, _ = search.finish()
    assert plan.budget["achieved"] == pytest.approx(0.4, abs=0.01)
    assert not any(t.startswith("stem") for t in plan.removed)
    uniform = Search(RESNET, sparsity=0.5, max_steps=4, multiple_of=1, allocation="uniform")
    assert len(uniform.masking.units.sections) > 5
    train_a_little(uniform, 4)
    plan, _ = uniform.finish()
    assert plan.budget["achieved"] == pytest.approx(0.5, abs=0.01)


def test_snap_moves_no_weight_and_leaves_nothing_undecided() -> None:
    search = Search(RESNET, sparsity=0.5, max_steps=10, budget_anneal=0.0, snap=0.2)
    assert isinstance(search.masking, UnitMasking)
    train_a_little(search, 8)
    keep = search.masking.units.harden(search.masking.masks.logits.detach().double().numpy()).keep
    s = search.masking.masks.soft().detach().numpy()
    assert ((s > 0.5) == keep).all()
    assert search.masking.undecided() == 0.0


@pytest.mark.parametrize("init", ["weight", "activation", "weight-activation", "taylor", "constant"])
@pytest.mark.parametrize("structure", ["channel", "block"])
def test_initial_masks(init: str, structure: str) -> None:
    batches = [(torch.randn(4, 3, 32, 32),)]
    search = Search(RESNET, structure=structure, sparsity=0.5, max_steps=4, mask_init=init, batches=batches)
    logits = search.masking.masks.logits.detach()
    assert torch.isfinite(logits).all()
    assert logits.unique().numel() > 0.95 * logits.numel()
    if init != "constant":
        assert float(logits.std(correction=0)) == pytest.approx(1.0, rel=1e-3)


def test_bad_words() -> None:
    with pytest.raises(OptionError, match="did you mean 'init_temp'"):
        Search(RESNET, sparsity=0.5, init_tmp=3)
    with pytest.raises(OptionError, match="exactly one of"):
        Search(RESNET, sparsity=0.5, macs=0.5)
    with pytest.raises(OptionError, match="N:M fixes the share"):
        Search(RESNET, structure="nm", sparsity=0.5)
    with pytest.raises(OptionError, match="did you mean 'smart'"):
        Search(RESNET, method="smarty", sparsity=0.5)
    with pytest.raises(OptionError, match="--mask-init activation looks at inputs"):
        Search(RESNET, sparsity=0.5, mask_init="activation")
    with pytest.raises(OptionError, match="16x8x1x1"):
        Search(RESNET, structure="block", block="16by8", sparsity=0.5)
    with pytest.raises(BudgetError, match="no weight holds a block"):
        Search(RESNET, structure="block", block="999x999", sparsity=0.5)
    with pytest.raises(ConversionError, match="Foo"):
        Search(load(small_network(head="Foo")), sparsity=0.5)


def test_input_norms_are_those_of_every_consumer() -> None:
    """One activation read by two convolutions (a block and its shortcut) counts for both weights."""
    search = Search(RESNET, sparsity=0.5, max_steps=4)
    x = torch.randn(4, 3, 32, 32)
    graph = search.imported.graph
    norms = input_norms(search.original, search.imported.nodes, graph, [(x,)])
    assert set(norms) == {w.value.name for w in contraction_weights(graph)}
    first = next(w.value.name for w in contraction_weights(graph))
    assert norms[first] == pytest.approx(x.square().mean((0, 2, 3)).sqrt().numpy(), rel=1e-5)
