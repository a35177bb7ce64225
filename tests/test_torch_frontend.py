"""PyTorch in, PyTorch out: what is traced, what is pruned, and what the pruned module still can."""

from __future__ import annotations

import copy
import io
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="tracing needs torch")

import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from graphprune import api
from graphprune.errors import ConversionError
from graphprune.frontends.torch import Converted, capture, convert, trace, write_back
from graphprune.results import PruneResult
from graphprune.running import Session
from tests.torch_modules import CASES, Case, Head, Residual, ShuffleAfterChunk, StandardisedWeight, conv

TOLERANCE = 1e-4


def made(case: Case) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A module whose normalisations do something, in evaluation mode, and its inputs."""
    torch.manual_seed(0)
    module = case.make().eval()
    for inner in module.modules():
        if isinstance(inner, nn.modules.batchnorm._BatchNorm):
            inner.running_mean.normal_()
            inner.running_var.uniform_(0.5, 2)
            nn.init.normal_(inner.bias)
    return module, tuple(torch.randn(*sizes) for sizes in case.inputs)


def in_onnxruntime(model: ir.Model, inputs: tuple[Tensor, ...]) -> Tensor:
    with Session(model) as session:
        feed = {v.name: x.numpy() for v, x in zip(model.graph.inputs, inputs, strict=True)}
        return torch.from_numpy(next(iter(session.run(feed).values())))


def apart(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def pruned(module: nn.Module, inputs: tuple[Tensor, ...], **options: object) -> tuple[Converted, PruneResult]:
    converted = convert(trace(module, inputs).module)
    return converted, api.prune(converted.model, **{"sparsity": 0.5, "multiple_of": 1, **options})


@pytest.mark.parametrize("name", CASES)
def test_pruned_modules_compute_what_the_proof_says_and_train_on(name: str) -> None:
    module, inputs = made(CASES[name])
    converted, result = pruned(module, inputs, **CASES[name].options)
    assert apart(in_onnxruntime(converted.model, inputs), module(*inputs).detach()) < TOLERANCE
    assert result.fidelity.holds
    assert 0 < result.removed_channels < result.analysis.prunable_channels

    small = write_back(converted, result.model.ir)
    assert apart(small(*inputs).detach(), in_onnxruntime(result.model.ir, inputs)) < TOLERANCE
    assert set(small.state_dict()) == set(module.state_dict())
    before, after = (sum(p.numel() for p in m.parameters()) for m in (module, small))
    assert after < before
    trainable = [
        {n: p.requires_grad for n, p in m.named_parameters(remove_duplicate=False)} for m in (module, small)
    ]
    assert trainable[0] == trainable[1]

    small.train()
    optimiser = torch.optim.SGD(small.parameters(), 1e-3)
    old = {n: p.detach().clone() for n, p in small.named_parameters()}
    small(*inputs).square().mean().backward()
    assert all(p.grad is not None for p in small.parameters())
    optimiser.step()
    assert any(not torch.equal(old[n], p) for n, p in small.named_parameters())


@pytest.mark.parametrize("name", ["Residual", "VisionTransformer", "Lstm", "BakedHeads"])
def test_a_batch_of_one_gives_a_module_for_any_batch(name: str) -> None:
    module, inputs = made(CASES[name])
    traced = trace(module, tuple(x[:1] for x in inputs))
    assert traced.dynamic
    converted = convert(traced.module)
    small = write_back(converted, api.prune(converted.model, sparsity=0.5, multiple_of=1).model.ir)
    many = tuple(torch.randn(5, *x.shape[1:]) for x in inputs)
    alone = torch.cat([small(*(x[i : i + 1] for x in many)) for i in range(5)])
    assert apart(small(*many).detach(), alone.detach()) < TOLERANCE


class FixedBatch(nn.Module):
    """Its sizes depend on the batch in a way that ONNX cannot say."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu()) * torch.eye(x.shape[0]).sum(1)[:, None]


def test_a_batch_is_fixed_where_it_must_be() -> None:
    torch.manual_seed(0)
    module, inputs = FixedBatch().eval(), (torch.randn(3, 6),)
    converted = capture(module, inputs)
    assert list(converted.model.graph.inputs[0].shape or ()) == [3, 6]
    small = write_back(converted, api.prune(converted.model, sparsity=0.5, multiple_of=1).model.ir)
    assert small(*inputs).shape == (3, 3)


def test_keyword_arguments_and_several_results_keep_their_form() -> None:
    torch.manual_seed(0)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor, *, shift: Tensor) -> dict[str, Tensor]:
            h = self.a(x + shift).relu()
            return {"out": self.b(h), "sum": h.sum()}

    x = torch.randn(2, 6)
    converted = capture(Two().eval(), x, {"shift": torch.randn(2, 6)})
    small = write_back(converted, converted.model)
    assert set(small(x, shift=x)) == {"out", "sum"}


def test_parameters_keep_their_names_and_layout() -> None:
    module, inputs = made(CASES["Residual"])
    converted = convert(trace(module, inputs).module)
    stored = {n: v.const_value for n, v in converted.model.graph.initializers.items()}
    wanted = {n: t for n, t in module.state_dict().items() if "num_batches_tracked" not in n}
    assert set(stored) == set(wanted)
    for name, tensor in wanted.items():
        assert np.array_equal(np.asarray(stored[name].numpy()), tensor.numpy())
    assert "conv2d" in converted.values.values()


def test_the_module_and_its_trace_stay_as_they_are() -> None:
    module, inputs = made(CASES["ShuffleAfterChunk"])
    module.train()
    state = copy.deepcopy(module.state_dict())
    traced = trace(module, inputs)
    code = traced.module.code
    converted = convert(traced.module)
    write_back(converted, api.prune(converted.model, sparsity=0.5).model.ir)
    assert module.training
    assert traced.module.code == code
    assert all(torch.equal(state[n], t) for n, t in module.state_dict().items())


def test_train_and_eval_reach_batch_norm_and_dropout() -> None:
    module, inputs = made(CASES["Residual"])
    converted, result = pruned(module, inputs)
    small = write_back(converted, result.model.ir)
    mean = small.bn0.running_mean.clone()
    assert torch.equal(small(*inputs), small(*inputs))
    assert torch.equal(mean, small.bn0.running_mean)
    small.train()
    assert not torch.equal(small(*inputs), small(*inputs))  # dropout
    assert not torch.equal(mean, small.bn0.running_mean)
    twin = copy.deepcopy(small)
    assert torch.equal(twin.eval()(*inputs), small.eval()(*inputs))


@pytest.mark.parametrize("name", ["Residual", "ShuffleAfterChunk", "MultiHeadAttention"])
def test_pruned_modules_are_exported_again(name: str) -> None:
    module, inputs = made(CASES[name])
    converted, result = pruned(module, inputs)
    small = write_back(converted, result.model.ir)
    file = io.BytesIO()
    torch.export.save(torch.export.export(small, inputs), file)
    file.seek(0)
    again = torch.export.load(file).module()
    assert apart(again(*inputs).detach(), small(*inputs).detach()) < TOLERANCE
    fresh = convert(trace(small, inputs).module)
    twice = api.prune(fresh.model, sparsity=0.3, multiple_of=1)
    assert twice.fidelity.holds


def test_graph_modules_are_traced_too() -> None:
    module, inputs = made(CASES["Residual"])
    symbolic = fx.symbolic_trace(module)
    converted, result = pruned(symbolic, inputs)
    small = write_back(converted, result.model.ir)
    assert apart(small(*inputs).detach(), in_onnxruntime(result.model.ir, inputs)) < TOLERANCE


def test_shared_weights_stay_shared() -> None:
    module, inputs = made(CASES["SharedWeight"])
    converted, result = pruned(module, inputs)
    small = write_back(converted, result.model.ir)
    assert small.e.weight is small.f.weight


def test_frozen_parameters_and_types_are_kept() -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    module.stem.weight.requires_grad_(False)
    inputs = (torch.randn(2, 3, 16, 16),)
    converted, result = pruned(module, inputs)
    small = write_back(converted, result.model.ir)
    assert not small.stem.weight.requires_grad
    assert small.fc.weight.requires_grad
    assert small.bn0.num_batches_tracked.dtype == torch.int64


def test_a_weight_that_is_computed_becomes_one() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.utils.parametrizations.weight_norm(conv(3, 16)), nn.ReLU(), conv(16, 8), Head(8)
    )
    inputs = (torch.randn(2, 3, 8, 8),)
    converted, result = pruned(module.eval(), inputs)
    small = write_back(converted, result.model.ir)
    assert apart(small(*inputs).detach(), in_onnxruntime(result.model.ir, inputs)) < TOLERANCE
    assert not [n for n in small.state_dict() if "parametrizations.weight" in n]
    assert all(p.requires_grad for p in small.parameters())


def test_normalisation_that_always_trains_is_of_the_weight() -> None:
    torch.manual_seed(0)
    module, inputs = StandardisedWeight().eval(), (torch.randn(2, 3, 8, 8),)
    converted, result = pruned(module, inputs)
    small = write_back(converted, result.model.ir)
    assert apart(small(*inputs).detach(), in_onnxruntime(result.model.ir, inputs)) < TOLERANCE
    again = write_back(converted, converted.model).train()
    assert apart(again(*inputs).detach(), module(*inputs).detach()) < TOLERANCE


class DataDependent(nn.Module):
    """Cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum().item()) > 0 else -x


class Unknown(nn.Module):
    """An operator without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.a = conv(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(self.a(x)).sum((2, 3))


class ViewChanged(nn.Module):
    """A view is changed in place while the whole is read later."""

    def __init__(self) -> None:
        super().__init__()
        self.a = conv(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x.flatten(1).relu_()
        return x


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (DataDependent(), "torch.export cannot trace DataDependent: "),
        (Unknown(), "operator linalg_inv"),
        (ViewChanged(), "changes a tensor in place"),
    ],
)
def test_what_cannot_be_pruned_is_named_in_one_sentence(module: nn.Module, words: str) -> None:
    with pytest.raises(ConversionError, match=words) as caught:
        convert(trace(module, torch.randn(2, 3, 8, 8)).module)
    assert "\n" not in str(caught.value)


def test_torch_is_not_imported_for_onnx_files() -> None:
    code = "import sys, graphprune, graphprune.frontends.onnx, graphprune.models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_selections_are_buffers_that_are_not_saved() -> None:
    module, inputs = made(Case(ShuffleAfterChunk, ((2, 3, 8, 8),)))
    converted, result = pruned(module, inputs)
    small = write_back(converted, result.model.ir)
    extra = set(dict(small.named_buffers())) - set(small.state_dict())
    assert extra
    assert all("indices" in name for name in extra)
