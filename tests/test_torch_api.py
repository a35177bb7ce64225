"""prune(nn.Module): the result, slicing in place, a search in one's own loop, files, the command line, both doors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

pytest.importorskip("torch", reason="modules need torch")

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import graphprune
from graphprune.errors import ConversionError, OptionError
from sample_models.export import export_module
from sample_models.zoo import SAMPLES
from tests.conftest import Run
from tests.marks import slow
from tests.torch_modules import CASES


class Gated(nn.Module):
    """Squeeze and excitation: a sigmoid gate is not 0 where its input is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.down = nn.Linear(channels, channels // 2)
        self.up = nn.Linear(channels // 2, channels)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(x)))
        gate = torch.sigmoid(self.up(torch.relu(self.down(y.mean((2, 3))))))
        return x + self.drop(y * gate[:, :, None, None])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.body = nn.Sequential(Gated(32), nn.GroupNorm(4, 32), Gated(32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Fixed(nn.Module):
    """A width written into its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3)
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(self.norm(self.conv(x)), 2).view(-1, 32 * 4))


def small_head() -> tuple[nn.Module, ...]:
    """Mean over the image, then ten classes."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    module = Net()
    for inner in module.modules():
        if isinstance(inner, nn.BatchNorm2d):
            nn.init.normal_(inner.running_mean)
    return module


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_a_module_comes_back_smaller_and_trains_on(net: nn.Module, x: Tensor) -> None:
    before = copy.deepcopy(net.state_dict())
    result = graphprune.prune(net, x, sparsity=0.5)
    small = result.module
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert net.training
    assert set(small.state_dict()) == set(net.state_dict())
    assert small.get_parameter("stem.weight").shape == (16, 3, 3, 3)
    assert not small.training
    session = ort.InferenceSession(result.model.to_onnx().SerializeToString())
    for batch in (x, torch.randn(5, 3, 16, 16)):
        (wanted,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        assert apart(small(batch).detach(), torch.from_numpy(wanted)) < 1e-4
    small.train()
    assert not torch.equal(small(x), small(x))  # dropout is awake
    means = small.get_buffer("body.0.norm.running_mean").clone()
    small(x)
    assert not torch.equal(means, small.get_buffer("body.0.norm.running_mean"))
    small.eval()
    assert torch.equal(small(x), small(x))


def test_masked_equals_pruned_in_torch_itself(net: nn.Module, x: Tensor) -> None:
    """By hand: zero what the removed channels feed, in the original module."""
    result = graphprune.prune(net, x, sparsity=0.5)
    masked = copy.deepcopy(net).eval()
    with torch.no_grad():
        for name, axes in result.plan.removed.items():
            for axis in result.plan.contracted.get(name, []):
                found = dict(masked.named_parameters())[name]
                removed = axes[str(axis)]
                assert all(isinstance(i, int) for i in removed)
                found.index_fill_(int(axis), torch.tensor(removed), 0.0)
    if not result.plan.kept_only:
        assert apart(result.module(x).detach(), masked(x).detach()) < 1e-4


def test_in_place(net: nn.Module, x: Tensor) -> None:
    parameters = dict(net.named_parameters())
    result = graphprune.prune(net, x, sparsity=0.5, in_place=True)
    assert net.stem.out_channels == net.head.in_features == 16
    assert net.body[0].conv.groups == net.body[0].norm.num_features == 16
    assert net.body[1].num_channels == 16
    assert net.body[1].num_groups == 2  # of 8 channels each, as before
    assert dict(net.named_parameters()).keys() == parameters.keys()
    assert all(p is parameters[n] for n, p in net.named_parameters())
    net.eval()
    assert apart(net(x).detach(), result.module(x).detach()) < 1e-5
    net.train()
    net(x).square().mean().backward()
    again = graphprune.prune(net, x, sparsity=0.5, in_place=True)
    assert net.stem.out_channels == 8
    assert again.plan.params["after"] < result.plan.params["after"]


def test_what_cannot_be_sliced_in_place_is_left_as_it_was(x: Tensor) -> None:
    module = Fixed()
    before, printed = copy.deepcopy(module.state_dict()), repr(module)
    with pytest.raises(
        OptionError, match=r"in_place: the forward of Fixed does not work .* use result.module"
    ):
        graphprune.prune(module, x, sparsity=0.5, in_place=True)
    assert repr(module) == printed
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module(x).shape == (2, 10)
    assert graphprune.prune(module, x, sparsity=0.5).module(x).shape == (2, 10)


@pytest.mark.parametrize(
    "words", [{"structure": "block", "block": "4x4x1x1", "sparsity": 0.5}, {"structure": "nm"}]
)
def test_zeroed_weights_come_back_too(net: nn.Module, x: Tensor, words: dict[str, Any]) -> None:
    result = graphprune.prune(net, x, **words)
    weight = result.module.get_parameter("head.weight")
    assert float((weight == 0).float().mean()) > 0.2
    assert apart(result.module(x).detach(), net.eval()(x).detach()) > 1e-3


def test_a_search_in_a_loop_of_ones_own(net: nn.Module, x: Tensor) -> None:
    search = graphprune.Search(net, x, sparsity=0.5, max_steps=6)
    optimizer = torch.optim.SGD(search.parameters(), lr=1e-2)
    search.module.train()
    for _ in range(8):
        loss = (search.module(x) - search.original(x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step(optimizer)
    plan, _ = search.finish()
    result = search.result()
    assert plan.weights == "trained"
    assert set(result.module.state_dict()) == set(net.state_dict())
    assert result.module.get_parameter("stem.weight").shape[0] == 16
    first = search.trained()["head.bias"]
    assert np.array_equal(first, result.module.get_parameter("head.bias").detach().numpy())
    assert not np.array_equal(first, net.get_parameter("head.bias").detach().numpy())


def test_a_search_trains_the_traced_module_itself(x: Tensor) -> None:
    """Dropout drops, BatchNorm counts, parameters have the user's names, and another device or type is allowed."""
    first = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Dropout(0.5))
    module = nn.Sequential(*first, *small_head())
    search = graphprune.Search(module, x, sparsity=0.5, max_steps=3)
    assert {n for n, _ in module.named_parameters()} == set(search.weights())
    assert apart(search.module(x).detach(), module.eval()(x).detach()) < 1e-6  # masks of 1
    search.module.train()
    first, second = search.module(x), search.module(x)
    assert not torch.equal(first, second)
    assert search.module.get_buffer("1.running_mean").abs().sum() > 0
    assert module[1].running_mean.abs().sum() == 0  # the user's own module is not touched
    first.square().mean().backward()
    assert all(p.grad is not None for p in search.weights().values())


@pytest.mark.parametrize(
    "name", ["ChangedInPlace", "SharedWeight", "ActivationShapedBuffers", "Lstm", "Swin"]
)
def test_masks_fit_into_traces(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    example = tuple(torch.randn(*s) for s in case.inputs)
    search = graphprune.Search(case.make().eval(), example, max_steps=2, **({"sparsity": 0.3} | case.options))
    assert not any("ONNX form" in n for n in search.source.notes)
    optimizer = torch.optim.SGD(search.parameters(), lr=1e-3)
    search.module.train()
    for _ in range(3):
        loss = torch.stack([t.square().mean() for t in pytree.tree_leaves(search.module(*example))]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step(optimizer)
    plan, _ = search.finish()
    assert 0 <= plan.fidelity["module"] < 1e-4


def test_half_precision_trains_in_float32_and_comes_back(x: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), *small_head()).bfloat16()
    search = graphprune.Search(module, x.bfloat16(), sparsity=0.5, max_steps=1)
    assert any("masks are trained in float32" in n for n in search.source.notes)
    search.finish()
    small = search.result().module
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert small(x.bfloat16()).dtype == torch.bfloat16


def test_what_onnxruntime_cannot_run_is_said(x: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), *small_head()).double()
    with pytest.raises(ConversionError, match=r"onnxruntime refuses it: .*; prune module.float\(\)"):
        graphprune.prune(module, x.double(), sparsity=0.5)


def test_files(net: nn.Module, x: Tensor, tmp_path: Path) -> None:
    result = graphprune.prune(net, x, sparsity=0.5)
    program = torch.export.load(result.save(tmp_path / "small.pt2")).module()
    assert (tmp_path / "small.plan.json").exists()
    other = torch.randn(3, 3, 16, 16)
    assert apart(program(other), result.module(other)) < 1e-5
    result.save(tmp_path / "small.onnx", force=True)
    assert graphprune.load(tmp_path / "small.onnx").to_onnx().graph.node
    save_file(result.module.state_dict(), tmp_path / "small.safetensors")
    again = graphprune.prune(net, x, sparsity=0.5)
    assert again.save(tmp_path / "again.pt2").read_bytes() == (tmp_path / "small.pt2").read_bytes()
    fresh = again.module
    for tensor in fresh.state_dict().values():
        tensor.zero_()
    fresh.load_state_dict(load_file(tmp_path / "small.safetensors"))
    assert torch.equal(fresh(x), result.module(x))
    onnx_again = torch.onnx.export(result.module, (x,), dynamo=True, verbose=False)
    assert onnx_again is not None
    with pytest.raises(OptionError, match=r"\.pt2 is for what was a PyTorch module"):
        graphprune.prune(result.model, sparsity=0.1, multiple_of=1).save(tmp_path / "x.pt2")


DOORS = (
    "resnet20", "resnet18", "vgg16", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2", "densenet", "googlenet",
    "bisenet_v2", "yolov5_raw", "vit", "swin",
)  # fmt: skip
SIDE_DOORS = {"vgg16", "shufflenet_v1", "shufflenet_v2", "yolov5_raw", "resnet18", "densenet", "googlenet"}


@pytest.mark.parametrize(
    "name",
    slow(
        DOORS, {"vgg16", "shufflenet_v2", "yolov5_raw", "resnet18", "shufflenet_v1", "densenet", "googlenet"}
    ),
)
def test_both_doors_lead_to_the_same_groups(name: str, tmp_path: Path) -> None:
    """The module itself, and its ONNX file: what goes together, and what goes."""
    sample = SAMPLES[name]
    torch.manual_seed(0)
    module = sample.builder(**sample.small).eval()
    with torch.no_grad():  # the exporter makes one tensor of equal ones, which would tie their channels
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape) * 0.01)
    example = torch.randn(2, *sample.input_shape())
    path = export_module(module, tmp_path / "model.onnx", example, sample.outputs)
    shapes = {"input": (1, *sample.input_shape())}
    doors = [graphprune.load(path), graphprune.load(module, example)]
    reports = [graphprune.analyze(m, input_shapes=shapes if m is doors[0] else None) for m in doors]
    shared = set.intersection(*({m["tensor"] for g in _groups(r) for m in g["members"]} for r in reports))
    assert len(shared) > 5
    first, second = (
        {
            (
                g["channels"],
                frozenset((m["tensor"], m["axis"]) for m in g["members"] if m["tensor"] in shared),
            )
            for g in _groups(r)
        }
        for r in reports
    )
    assert first == second
    if name == "swin":  # the exporter folds the bias tables: other tensors, so other magnitudes
        return
    results = [
        graphprune.prune(m, sparsity=0.4, input_shapes=shapes if m is doors[0] else None) for m in doors
    ]
    for tensor in shared:
        assert results[0].plan.removed.get(tensor) == results[1].plan.removed.get(tensor), tensor
    small = results[1].module.train()
    outputs = small(torch.randn(3, *sample.input_shape()))
    torch.stack(
        [y.square().mean() for y in (outputs if isinstance(outputs, tuple) else [outputs])]
    ).sum().backward()
    assert all(p.grad is not None for p in small.parameters() if p.requires_grad)


def _groups(report: Any) -> list[dict[str, Any]]:
    return [g for g in report.to_dict()["groups"] if g["prunable"]]


def test_what_does_not_go(net: nn.Module, x: Tensor) -> None:
    with pytest.raises(OptionError, match="Net is a PyTorch module: give example_inputs"):
        graphprune.prune(net, sparsity=0.5)
    with pytest.raises(OptionError, match="example_inputs go with a PyTorch module"):
        graphprune.analyze(graphprune.load(net, x).ir, x)
    with pytest.raises(OptionError, match="in_place slices a PyTorch module"):
        graphprune.prune(graphprune.load(net, x).ir, sparsity=0.5, in_place=True)

    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConversionError, match=r"torch\.export cannot trace Undecided: "):
        graphprune.prune(Undecided(), x, sparsity=0.5)


def test_a_factory_on_the_command_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "factories.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def small():\n"
        "    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))\n"
        "def words():\n"
        "    return nn.Sequential(nn.Embedding(50, 32), nn.Linear(32, 4)), torch.randint(50, (2, 7))\n"
        "def three():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    code, out, err = run("analyze", "factories:small", "--input-shape", "1,3,16,16")
    assert code == 0, err
    assert "32 coupled channels" in out or "40 filters" in out or "prunable" in out
    assert err == ""
    code, out, err = run(
        "prune", "factories:small", "--input-shape", "1,3,16,16", "--sparsity", "0.5", "-o", "s.pt2"
    )
    assert code == 0, err
    assert torch.export.load("s.pt2").module()(torch.randn(2, 3, 16, 16)).shape == (2, 8, 12, 12)
    code, _, err = run("prune", "factories:words", "--sparsity", "0.5")
    assert code == 0, err
    assert (tmp_path / "words.pruned.onnx").exists()
    for argument, sentence in (
        ("factories:three", "returned int: it must return an nn.Module"),
        ("factories:four", "has no function four"),
        ("factoris:small", "importing factoris failed"),
    ):
        code, _, err = run("analyze", argument, "--input-shape", "1")
        assert code == 2
        assert sentence in err
    code, _, err = run("analyze", "factories:small")
    assert code == 2
    assert "give --input-shape 1,3,224,224" in err
