"""Methods that score units by gradients: each against its definition, and on real networks end to end."""

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

import graphprune
from graphprune.errors import OptionError
from graphprune.methods import all_trained, find_trained
from graphprune.methods.synflow import _linearised, flow
from graphprune.search import answers
from graphprune.search.scoring import Scoring
from graphprune.search.search import Search
from sample_models.export import export_module

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
SCORED = sorted(name for name, m in all_trained().items() if m.score is not None)
STRUCTURES = {"channel": {"sparsity": 0.5}, "block": {"sparsity": 0.7, "block": "16x8x1x1"}, "nm": {}}
UNITS = ("channel", "block")
"""Structures whose masks are parameters of their own."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def samples(count: int = 2, batch: int = 8) -> list[tuple[tuple[torch.Tensor], torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            (torch.randn(batch, 3, 32, 32, generator=generator),),
            torch.randint(10, (batch,), generator=generator),
        )
        for _ in range(count)
    ]


def scoring(structure: str, method: str = "snip", **words: Any) -> Scoring:
    search = Search(
        RESNET,
        structure=structure,
        method=method,
        max_steps=1,
        deferred=True,
        **STRUCTURES[structure],
        **words,
    )
    return Scoring(search, samples())


def perceptron(widths: Sequence[int], seed: int = 0) -> onnx.ModelProto:
    """Gemm and Relu in turn, without biases."""
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for i, (n, m) in enumerate(pairwise(widths)):
        weights.append(numpy_helper.from_array(rng.standard_normal((m, n)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{i}"], [f"u{i}"], transB=1))
        last = f"u{i}"
        if i < len(widths) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"v{i}"]))
            last = f"v{i}"
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, widths[0]])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, widths[-1]])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("structure", UNITS)
def test_mask_gradients_are_sums_of_weight_times_gradient(structure: str) -> None:
    found = scoring(structure)
    by_mask = sum(found.mask_gradients())
    total = {name: torch.zeros_like(p) for name, p in found.weights().items()}
    for loss in found.losses():
        gradients = torch.autograd.grad(loss, list(found.weights().values()))
        for (name, weight), gradient in zip(found.weights().items(), gradients, strict=True):
            total[name] += weight.detach() * gradient
    assert found.unit_sums(total) == pytest.approx(by_mask, abs=1e-5 * np.abs(by_mask).max())


def test_unit_sums_count_every_weight_once() -> None:
    found = scoring("block")
    ones = {name: torch.ones_like(p) for name, p in found.weights().items()}
    assert found.unit_sums(ones) == pytest.approx(found.units.blocking.cost)


def test_snip_predicts_the_loss() -> None:
    """Switching a unit off a little changes the loss by its gradient (equation 3)."""
    found = scoring("channel")
    gradient = sum(found.mask_gradients())
    scores = find_trained("snip").score(found)
    assert scores.sum() == pytest.approx(1)
    unit, step = int(scores.argmax()), 1e-2
    moved = []
    for sign in (1, -1):
        with found.masks_at_one() as probe, torch.no_grad():
            probe[unit] += sign * step
            moved.append(sum(float(loss) for loss in found.losses()))
    assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(gradient[unit], rel=0.02)


def test_pixels_of_no_class_do_not_count() -> None:
    scores = torch.randn(2, 3, 4, 4)
    labels = torch.randint(3, (2, 4, 4))
    some = labels.clone()
    some[0, 0], some[0, 1], some[1, 2] = 255, 3, -1
    wanted = answers.classes(scores, some)
    counted = (some >= 0) & (some < 3)
    by_pixel = F.cross_entropy(scores, labels, reduction="none")
    torch.testing.assert_close(answers.distance(scores, wanted), by_pixel[counted].mean())
    assert answers.distance(scores, answers.classes(scores, torch.full_like(labels, 255))) == 0


@pytest.mark.parametrize("method", [m for m in SCORED if find_trained(m).data != "none"])
def test_a_segmenter_with_unlabelled_pixels(method: str, tmp_path: Path) -> None:
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 1)]
    file = export_module(torch.nn.Sequential(*layers), tmp_path / "m.onnx", torch.zeros(2, 3, 8, 8), ("y",))
    labels = torch.full((4, 8, 8), 5)
    labels[:, :3] = torch.randint(5, (4, 3, 8))
    search = Search(file, structure="channel", sparsity=0.5, method=method, max_steps=1, deferred=True)
    found = Scoring(search, [((torch.randn(4, 3, 8, 8),), labels)])
    scores = find_trained(method).score(found)
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0


def test_taylor_squares_batch_by_batch() -> None:
    found = scoring("channel")
    expected = sum(g**2 for g in found.mask_gradients())
    assert find_trained("taylor").score(found) == pytest.approx(expected, rel=1e-5)


def test_grasp_is_weight_times_hessian_times_gradient() -> None:
    """On a quadratic loss the Hessian is known: L = |Wx|^2 / n, H g = 2/n (g x) x'."""
    search = Search(
        perceptron([6, 4]), structure="block", block="1x1", sparsity=0.5, method="grasp", deferred=True
    )
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    found = Scoring(search, [((x,), None)])
    found.losses = lambda: iter([found.module(x).square().mean()])  # type: ignore[method-assign]
    w = found.weights()["w0"].detach().double()
    c = x.double().T @ x.double() * 2 / 20
    expected = w * (w @ c @ c)
    assert find_trained("grasp").score(found) == pytest.approx(expected.numpy().reshape(-1), rel=1e-4)


def test_synflow_conserves_the_flow() -> None:
    """The scores of every layer sum to R (the paper's conservation, section 4)."""
    search = Search(
        perceptron([7, 12, 9, 5]),
        structure="block",
        block="1x1",
        sparsity=0.5,
        method="synflow",
        deferred=True,
    )
    found = Scoring(search, [])
    with _linearised(found) as inputs:
        scores = flow(found, np.ones(found.units.size, bool), inputs)
        total = float(found.module(*inputs).detach().sum())
    layers = [scores[b.own].sum() for b in found.units.blocking.blocked]
    assert layers == pytest.approx([total] * 3, rel=1e-5)
    assert {n: p.min().item() < 0 for n, p in found.weights().items()} == {"w0": True, "w1": True, "w2": True}


@pytest.mark.parametrize("sparsity", [0.9, 0.97])
def test_synflow_never_collapses_a_layer(sparsity: float) -> None:
    """One layer is far smaller than the others: magnitude empties it, SynFlow does not."""
    model = perceptron([40, 40, 40, 10])
    middle = numpy_helper.to_array(model.graph.initializer[1]) * np.float32(1e-3)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(middle, "w1"))
    words = {"structure": "block", "block": "1x1", "sparsity": sparsity, "max_layer_sparsity": 1.0}
    result = graphprune.prune(model, method="synflow", **words)
    kept = {name: len(entry["kept"]) for name, entry in result.plan.blocks.items()}
    assert min(kept.values()) >= 10
    magnitude = graphprune.prune(model, method="magnitude", allocation="global", **words)
    assert len(magnitude.plan.blocks["w1"]["kept"]) == 1  # what must stay of every weight


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    (((x,), y),) = samples(1, 64)
    np.savez(path, input=x.numpy(), labels=y.numpy())
    return path


@pytest.mark.parametrize("finetune", [0.0, 1.0])
def test_from_data_with_and_without_finetuning(finetune: float, images: Path) -> None:
    recipe = graphprune.Recipe(batch_size=16, finetune_epochs=finetune, threads=1)
    training = graphprune.TrainingOptions(str(images), recipe, eval_data=str(images))
    result = graphprune.prune(RESNET, method="snip", sparsity=0.3, training=training)
    assert result.fidelity.holds
    assert set(result.metrics) == {"before", "after hardening", "after fine-tuning"}
    changed = result.plan.weights == "trained"
    assert changed


def test_what_does_not_go() -> None:
    with pytest.raises(
        OptionError, match="--method synflow does not serve --structure nm: it is for channel, block"
    ):
        Search(RESNET, structure="nm", method="synflow")
    with pytest.raises(OptionError, match="--method snip needs inputs: give it --data"):
        graphprune.prune(RESNET, sparsity=0.5, method="snip")
    with pytest.raises(OptionError, match="looks at inputs: give data"):
        Search(RESNET, sparsity=0.5, method="taylor")


def coarse_only(outputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """A loss of one's own: ``labels`` ``[n]`` are what the means of the second output should be."""
    return (outputs[1].mean((1, 2, 3)) - labels).square().mean()


class TwoScales(torch.nn.Module):
    """The first output looks at channels 0 to 3, the second at the others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.fine, self.coarse = torch.nn.Conv2d(8, 4, 1), torch.nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.fine.weight[:, 4:], self.coarse.weight[:, :4] = 0, 0
            self.fine.weight[:, :4], self.coarse.weight[:, 4:] = 0.5, 0.5

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.stem(x).relu()
        return self.fine(x), self.coarse(x)


@pytest.mark.parametrize("method", ["pso", "snip", "taylor"])
def test_gradients_are_of_the_loss_that_trains(method: str, tmp_path: Path) -> None:
    """Where labels are nothing to compare an output with, only the user's function knows what matters."""
    torch.manual_seed(0)
    file = export_module(TwoScales(), tmp_path / "m.onnx", torch.zeros(2, 3, 8, 8), ("fine", "coarse"))
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.savez(
        tmp_path / "d.npz", input=images, labels=np.full(8, 5, np.float32)
    )  # the more channels, the better
    recipe = graphprune.Recipe(
        loss=f"python:{__name__}:coarse_only", batch_size=4, finetune_epochs=0, threads=1
    )
    result = graphprune.prune(
        file,
        method=method,
        sparsity=0.5,
        multiple_of=1,
        training=graphprune.TrainingOptions(str(tmp_path / "d.npz"), recipe),
    )
    assert result.plan.removed["stem.weight"]["0"] == [0, 1, 2, 3]


def test_cross_entropy_with_its_own_answers_where_there_are_no_labels() -> None:
    found = scoring("channel")
    found.samples = [(x, None) for x, _ in found.samples]
    (x,), _ = found.samples[0]
    outputs = found.module(x)
    expected = F.cross_entropy(outputs, outputs.argmax(1))
    assert float(next(found.losses())) == pytest.approx(float(expected))
