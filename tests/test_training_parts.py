"""Schedules, optimisers, losses and averages, each against hand values or torch itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from graphprune.errors import DataError, OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph
from graphprune.recipes.schedules import budget_share, lr_factor, set_lr, temperature
from graphprune.training.averaging import Average
from graphprune.training.losses import find_loss
from graphprune.training.optimisers import Optimizer, build_optimizer
from graphprune.training.output_kinds import Kind, Output, float_outputs

# -- schedules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "half", "last"),
    [
        ("constant", 1.0, 1.0),
        ("cosine", 0.5, (1 + math.cos(0.9 * math.pi)) / 2),
        ("linear", 0.5, 0.1),
        ("lambda", 0.505, 0.109),
        ("poly", 0.5**0.9, 0.1**0.9),
    ],
)
def test_lr_factor(scheduler: str, half: float, last: float) -> None:
    assert lr_factor(0, 10, 0, scheduler) == 1.0
    assert lr_factor(5, 10, 0, scheduler) == pytest.approx(half)
    assert lr_factor(9, 10, 0, scheduler) == pytest.approx(last)
    assert lr_factor(99, 10, 0, scheduler) == pytest.approx(lr_factor(10, 10, 0, scheduler))
    assert [lr_factor(i, 10, 4, scheduler) for i in range(4)] == pytest.approx(
        [lr_factor(i, 10, 0, scheduler) * (i + 1) / 4 for i in range(4)]
    )
    assert lr_factor(4, 10, 4, scheduler) == lr_factor(4, 10, 0, scheduler)


def test_schedules_equal_torch() -> None:
    """The closed forms of torch's own schedulers."""
    weight = nn.Parameter(torch.zeros(1))
    for name, make in {
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20),
        "linear": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 20),
        "lambda": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.01, 20),
        "poly": lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 20, power=0.9),
    }.items():
        optimizer = torch.optim.SGD([weight], lr=1.0)
        schedule = make(optimizer)
        for step in range(20):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(lr_factor(step, 20, 0, name), abs=1e-9)
            optimizer.step()
            schedule.step()


def test_temperature() -> None:
    values = [temperature(i, 6, 10.0, 1e-4, "exp") for i in range(6)]
    assert values == pytest.approx([10, 1, 0.1, 0.01, 0.001, 0.0001])
    assert [temperature(i, 5, 10.0, 2.0, "linear") for i in range(5)] == pytest.approx([10, 8, 6, 4, 2])
    mirrored = [10 + 1e-4 - v for v in reversed(values)]
    assert [temperature(i, 6, 10.0, 1e-4, "inverse") for i in range(6)] == pytest.approx(mirrored, abs=1e-12)
    assert {temperature(0, 1, 10.0, 0.5, name) for name in ("exp", "linear", "inverse")} == {0.5}
    with pytest.raises(OptionError, match="unknown temperature schedule 'expp': did you mean 'exp'"):
        temperature(0, 5, 1.0, 0.1, "expp")
    with pytest.raises(OptionError, match="unknown scheduler 'pony': did you mean 'poly'"):
        lr_factor(0, 5, 0, "pony")


@given(st.integers(1, 300), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_budget_share(steps: int, anneal: float) -> None:
    shares = [budget_share(i, steps, anneal) for i in range(steps)]
    assert all(0 <= s <= 1 for s in shares)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert shares[0] == (0.0 if anneal > 0 and steps > 1 else 1.0)


def test_budget_share_is_cubic() -> None:
    assert [budget_share(i, 9, 0.5) for i in range(6)] == pytest.approx([0, 37 / 64, 7 / 8, 63 / 64, 1, 1])
    assert budget_share(0, 9, 0.0) == 1.0


# -- optimisers ---------------------------------------------------------------------------------------


class Net(nn.Module):
    """One parameter of each sort."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 6, 3)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.norm(self.depthwise(self.conv(x))).mean((2, 3)))
        return y


PLAIN = ("depthwise.weight", "fc.weight")


def train(net: nn.Module, optimizer: Optimizer | torch.optim.Optimizer, first: int, last: int) -> None:
    """Steps ``first`` to ``last`` on data drawn from the step's number."""
    for step in range(first, last):
        x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        set_lr(optimizer.param_groups, lr_factor(step, 10, 2, "cosine"))
        optimizer.step()


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether all values of two modules are equal, bit for bit."""
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


ORACLES: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.999), weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.999), weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.8, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.8, weight_decay=0.1),
}


@pytest.mark.parametrize("name", ORACLES)
def test_optimizer_is_torchs(name: str) -> None:
    ours, theirs = Net(), Net()
    optimizer = build_optimizer(name, ours.named_parameters(), lr=0.01, momentum=0.8, weight_decay=0.1)
    oracle = ORACLES[name](theirs.parameters())
    oracle.param_groups[0]["initial_lr"] = 0.01
    train(ours, optimizer, 0, 5)
    train(theirs, oracle, 0, 5)
    assert same(ours, theirs)


def test_muon_is_torchs_on_matrices_and_adamw_elsewhere() -> None:
    ours, theirs = Net(), Net()
    optimizer = build_optimizer(
        "muon", ours.named_parameters(), lr=0.01, momentum=0.95, weight_decay=0.1, not_matrices=PLAIN
    )
    assert [g["initial_lr"] for g in optimizer.param_groups] == [0.01, 0.01]
    flat = nn.Parameter(theirs.conv.weight.detach().flatten(1).clone())
    muon = torch.optim.Muon([flat], lr=0.01, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    rest = [p for name, p in theirs.named_parameters() if name != "conv.weight"]
    adam = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1)
    for step in range(5):
        x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for net in (ours, theirs):
            net.zero_grad()
            net(x).square().mean().backward()
        optimizer.step()
        assert theirs.conv.weight.grad is not None
        flat.grad = theirs.conv.weight.grad.flatten(1)
        muon.step()
        adam.step()
        theirs.conv.weight.data.copy_(flat.view_as(theirs.conv.weight))
    assert same(ours, theirs)


@pytest.mark.parametrize("shape", [(64, 16, 3, 3), (8, 200), (1, 48, 12), (5, 4, 3)])
def test_muon_steps_are_orthogonal_and_as_long_as_adams(shape: tuple[int, ...]) -> None:
    """lr times 0.2 sqrt(longer side) times a matrix whose singular values are 0.5 to 1.5, roughly."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = build_optimizer("muon", [("w", weight)], lr=0.1, momentum=0.95)
    weight.grad = torch.randn(shape)
    optimizer.step()
    rows = shape[0] if shape[0] > 1 else shape[1]
    matrix = weight.detach().view(rows, -1)
    singular = torch.linalg.svdvals(matrix) / (0.1 * 0.2 * math.sqrt(max(matrix.shape)))
    assert 0.3 < singular.min() <= singular.max() < 1.6
    wanted = 0.1 * 0.2
    assert 0.6 * wanted < matrix.square().mean().sqrt() < 1.3 * wanted


def test_muon_survives_replaced_and_reordered_storage() -> None:
    """module.to(...) replaces the storage; a channels-last weight has no view as a matrix."""
    torch.manual_seed(0)
    start, gradients = torch.randn(6, 3, 3, 3), torch.randn(3, 6, 3, 3, 3)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(start.clone())
        optimizer = build_optimizer("muon", [("w", weight)], lr=0.1)
        weight.data = weight.data.clone(memory_format=layout)
        for gradient in gradients:
            weight.grad = gradient.clone(memory_format=layout)
            optimizer.step()
        results.append(weight.detach())
    assert not torch.allclose(results[0], start, atol=0.05)
    torch.testing.assert_close(results[0], results[1])


def test_weights_without_gradient_stay() -> None:
    net = Net()
    before = net.conv.weight.detach().clone()
    net.fc.weight.requires_grad_(False)
    optimizer = build_optimizer("muon", net.named_parameters(), lr=0.01, weight_decay=0.1)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(net.parameters())) - 1
    optimizer.step()
    assert torch.equal(net.conv.weight, before)
    nothing = build_optimizer("adam", [], lr=0.1)
    nothing.step()
    assert nothing.param_groups == []


@pytest.mark.parametrize("name", [*ORACLES, "muon"])
def test_optimizer_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    def build(net: nn.Module) -> Optimizer:
        return build_optimizer(name, net.named_parameters(), lr=0.01, not_matrices=PLAIN)

    whole, cut, resumed = Net(), Net(), Net()
    train(whole, build(whole), 0, 6)
    optimizer = build(cut)
    train(cut, optimizer, 0, 3)
    torch.save({"net": cut.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    optimizer = build(resumed)
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    train(resumed, optimizer, 3, 6)
    assert same(whole, resumed)


def test_unknown_optimizer() -> None:
    with pytest.raises(OptionError, match="unknown optimiser 'mion': did you mean 'muon'"):
        build_optimizer("mion", Net().named_parameters(), lr=0.1)


# -- what outputs are ---------------------------------------------------------------------------------


def graph_of(
    *nodes: onnx.NodeProto, shape: tuple[int | str, ...] = ("n", 6), outputs: str = "y", opset: int = 17
) -> Graph:
    """The Graph of a model whose input ``x`` has ``shape`` and whose outputs are named by letters."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [helper.make_tensor("flat", TensorProto.INT64, [2], [0, -1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return build_graph(ir.from_proto(onnx.shape_inference.infer_shapes(model)))


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node whose inputs are separated by blanks."""
    return helper.make_node(op, inputs.split(), [output], **attributes)


IMAGE = ("n", 6, 4, 5)

CASES: dict[str, tuple[Graph, Kind, int, int]] = {
    "logits": (graph_of(node("Relu", "x", "y")), Kind.logits, 6, 1),
    "pooled logits": (
        graph_of(node("GlobalAveragePool", "x", "y"), shape=IMAGE),
        Kind.logits,
        6,
        1,
    ),
    "one number": (graph_of(node("Relu", "x", "y"), shape=("n", 1)), Kind.features, 0, 1),
    "image": (graph_of(node("Relu", "x", "y"), shape=IMAGE), Kind.features, 0, 1),
    "softmax": (graph_of(node("Softmax", "x", "y", axis=1)), Kind.probabilities, 6, 1),
    "softmax of pixels": (
        graph_of(node("Softmax", "x", "y", axis=1), shape=IMAGE),
        Kind.probabilities,
        6,
        20,
    ),
    "softmax, last axis": (graph_of(node("Softmax", "x", "y"), shape=IMAGE), Kind.probabilities, 5, 1),
    "old softmax": (graph_of(node("Softmax", "x", "y"), shape=IMAGE, opset=11), Kind.probabilities, 120, 1),
    "softmax behind views": (
        graph_of(
            node("Softmax", "x", "a", axis=1),
            node("Identity", "a", "b"),
            node("Flatten", "b", "c"),
            node("Reshape", "c flat", "d"),
            node("Cast", "d", "y", to=TensorProto.FLOAT16),
            shape=IMAGE,
        ),
        Kind.probabilities,
        6,
        20,
    ),
    "softmax, transposed": (
        graph_of(node("Softmax", "x", "a"), node("Transpose", "a", "y", perm=[0, 3, 1, 2]), shape=IMAGE),
        Kind.features,
        0,
        1,
    ),
    "softmax over the batch": (graph_of(node("Softmax", "x", "y", axis=0)), Kind.features, 0, 1),
    "log-softmax": (
        graph_of(node("LogSoftmax", "x", "a", axis=1), node("Flatten", "a", "y"), shape=("n", 6, 1, 1)),
        Kind.log_probabilities,
        6,
        1,
    ),
    "sigmoid": (graph_of(node("Sigmoid", "x", "y")), Kind.bernoulli, 0, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_output_kind(case: str) -> None:
    graph, kind, classes, inner = CASES[case]
    (found,) = float_outputs(graph)
    assert (found.kind, found.classes, found.inner) == (kind, classes, inner)


def test_outputs_without_floats() -> None:
    top = node("ArgMax", "x", "a", axis=1)
    mixed = graph_of(top, node("Softmax", "x", "b"), outputs="ab")
    assert [(o.index, o.kind) for o in float_outputs(mixed)] == [(1, Kind.probabilities)]
    for name in ("distill", "cross-entropy", "mse"):
        with pytest.raises(OptionError, match="no output of floating point"):
            find_loss(name, graph_of(top, outputs="a"))


# -- losses -------------------------------------------------------------------------------------------


def case_graph(case: str) -> Graph:
    """The graph of a case above."""
    return CASES[case][0]


@pytest.mark.parametrize("temp", [1.0, 4.0])
def test_distillation_of_classes(temp: float) -> None:
    torch.manual_seed(0)
    s, t = torch.randn(7, 6), torch.randn(7, 6)
    oracle = kl_divergence(Categorical(logits=t / temp), Categorical(logits=s / temp)).mean() * temp**2
    for case, view in {
        "logits": lambda x: x,
        "softmax": lambda x: x.softmax(1),
        "log-softmax": lambda x: x.log_softmax(1),
    }.items():
        loss = find_loss("distill", case_graph(case), temp)
        assert loss.needs_teacher
        assert not loss.needs_labels
        torch.testing.assert_close(loss((view(s),), (view(t),), None), oracle, rtol=1e-5, atol=1e-6)
        assert abs(float(loss((view(t),), (view(t),), None))) < 1e-6


def test_distillation_of_pixels_is_the_mean_over_them() -> None:
    torch.manual_seed(0)
    s, t = torch.randn(2, 6, 4, 5), torch.randn(2, 6, 4, 5)
    oracle = kl_divergence(Categorical(logits=t.movedim(1, -1)), Categorical(logits=s.movedim(1, -1))).mean()
    for case, shape in {"softmax of pixels": (2, 6, 4, 5), "softmax behind views": (2, 120)}.items():
        loss = find_loss("distill", case_graph(case))
        value = loss((s.softmax(1).reshape(shape),), (t.softmax(1).reshape(shape),), None)
        torch.testing.assert_close(value, oracle, rtol=1e-5, atol=1e-6)
    old = find_loss("distill", case_graph("old softmax"))
    value = old(*((x.flatten(1).softmax(1).view_as(x),) for x in (s, t)), None)
    oracle = kl_divergence(Categorical(logits=t.flatten(1)), Categorical(logits=s.flatten(1))).mean()
    torch.testing.assert_close(value, oracle, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temp", [1.0, 3.0])
def test_distillation_of_sigmoids(temp: float) -> None:
    torch.manual_seed(0)
    s, t = torch.randn(7, 6), torch.randn(7, 6)
    oracle = kl_divergence(Bernoulli(logits=t / temp), Bernoulli(logits=s / temp)).mean() * temp**2
    loss = find_loss("distill", case_graph("sigmoid"), temp)
    torch.testing.assert_close(loss((s.sigmoid(),), (t.sigmoid(),), None), oracle, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "view"), [("softmax", torch.softmax), ("sigmoid", lambda x, _: x.sigmoid())]
)
@pytest.mark.parametrize("gap", [1.0, 10.0, 40.0])
def test_confident_mistakes_keep_their_gradient(
    case: str, view: Callable[[torch.Tensor, int], torch.Tensor], gap: float
) -> None:
    """Through probabilities the gradient reaches the logits as if the loss had seen them: p - t."""
    s = torch.tensor([[-gap, 0.0, 0.5, 1.0, 0.0, -1.0]], requires_grad=True)
    t = torch.tensor([[gap, 0.0, 0.5, -1.0, 2.0, 0.0]])
    find_loss("distill", case_graph(case))((view(s, 1),), (view(t, 1),), None).backward()
    wanted = view(s.detach(), 1) - view(t, 1)
    torch.testing.assert_close(s.grad, wanted if case == "softmax" else wanted / 6, rtol=1e-4, atol=1e-6)


def test_distillation_of_features() -> None:
    s, t = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 6.0]]]]), torch.tensor([[[[1.0, 1.0]]], [[[5.0, 5.0]]]])
    loss = find_loss("distill", graph_of(node("Relu", "x", "y"), shape=("n", 1, 1, 2)))
    assert float(loss((s,), (t,), None)) == pytest.approx((0 + 1 + 4 + 1) / 4 / 4, rel=1e-4)
    assert math.isfinite(float(loss((s,), (torch.zeros_like(t),), None)))
    assert float(loss((t,), (t,), None)) == 0.0
    guess = torch.full_like(t, 3.0)
    assert float(loss((guess,), (t,), None)) == pytest.approx(1.0, rel=1e-4)


def test_distillation_sums_over_outputs() -> None:
    torch.manual_seed(0)
    graph = graph_of(
        node("Relu", "x", "a"), node("ArgMax", "x", "b", axis=1), node("Sigmoid", "x", "c"), outputs="abc"
    )
    s, t = torch.randn(5, 6), torch.randn(5, 6)
    top = torch.zeros(5, 1, dtype=torch.int64)
    both = find_loss("distill", graph)((s, top, s.sigmoid()), (t, top, t.sigmoid()), None)
    one = find_loss("distill", case_graph("logits"))((s,), (t,), None)
    other = find_loss("distill", case_graph("sigmoid"))((s.sigmoid(),), (t.sigmoid(),), None)
    torch.testing.assert_close(both, one + other)


@pytest.mark.parametrize("case", ["logits", "softmax", "log-softmax", "sigmoid", "image"])
def test_gradients_equal_finite_differences(case: str) -> None:
    torch.manual_seed(0)
    loss = find_loss("distill", case_graph(case), 2.0)
    views: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "softmax": lambda x: x.softmax(1),
        "log-softmax": lambda x: x.log_softmax(1),
        "sigmoid": lambda x: x.sigmoid(),
    }
    view = views.get(case, lambda x: x)
    s, t = (torch.randn(3, 6, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: loss((view(x),), (view(t),), None), (s.requires_grad_(),))


def test_cross_entropy() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(7, 6), torch.randint(6, (7,))
    oracle = F.cross_entropy(x, labels)
    for case, value in {"logits": x, "softmax": x.softmax(1), "log-softmax": x.log_softmax(1)}.items():
        loss = find_loss("cross-entropy", case_graph(case))
        assert loss.needs_labels
        assert not loss.needs_teacher
        torch.testing.assert_close(loss((value,), None, labels), oracle)
        torch.testing.assert_close(loss((value,), None, labels[:, None].int()), oracle)
    pooled = find_loss("cross-entropy", case_graph("pooled logits"))
    torch.testing.assert_close(pooled((x[:, :, None, None],), None, labels), oracle)


def test_cross_entropy_of_pixels() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(2, 6, 4, 5), torch.randint(6, (2, 4, 5))
    labels[0, :2] = 255
    oracle = F.cross_entropy(x, labels, ignore_index=255)
    for case, value in {"image": x, "softmax of pixels": x.softmax(1)}.items():
        loss = find_loss("cross-entropy", case_graph(case))
        torch.testing.assert_close(loss((value,), None, labels), oracle)
        assert float(loss((value,), None, torch.full_like(labels, 255))) == 0.0
    last = graph_of(node("Softmax", "x", "y"), shape=("n", 4, 5, 6))
    value = find_loss("cross-entropy", last)((x.movedim(1, -1).softmax(-1),), None, labels)
    torch.testing.assert_close(value, oracle)


def test_class_255_of_1000_counts() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(3, 1000), torch.tensor([255, 0, 999])
    loss = find_loss("cross-entropy", graph_of(node("Relu", "x", "y"), shape=("n", 1000)))
    torch.testing.assert_close(loss((x,), None, labels), F.cross_entropy(x, labels))


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (torch.tensor([0, 6]), "label 6 is out of range: the model has 6 classes"),
        (torch.tensor([0, -1]), "label -1 is out of range"),
        (torch.tensor([0, 255]), "label 255 is out of range"),
        (torch.tensor([0, 1, 2]), r"labels of shape \(3,\) do not fit output 'y' of shape \(2, 6\)"),
        (torch.tensor([0.0, 1.0]), "whole numbers"),
        (None, "whole numbers"),
    ],
)
def test_wrong_labels(labels: torch.Tensor | None, sentence: str) -> None:
    loss = find_loss("cross-entropy", case_graph("logits"))
    with pytest.raises((DataError, OptionError), match=sentence):
        loss((torch.randn(2, 6),), None, labels)


@pytest.mark.parametrize("case", ["sigmoid", "one number"])
def test_cross_entropy_needs_classes(case: str) -> None:
    with pytest.raises(OptionError, match="needs scores of two classes or more, but output 'y' has"):
        find_loss("cross-entropy", case_graph(case))


def test_squared_error() -> None:
    torch.manual_seed(0)
    loss = find_loss("mse", case_graph("one number"))
    x, t = torch.randn(5, 1), torch.randn(5, 1)
    assert loss.needs_teacher
    targets = torch.arange(5)
    torch.testing.assert_close(loss((x,), (t,), None), F.mse_loss(x, t))
    torch.testing.assert_close(loss((x,), (t,), targets.double()), F.mse_loss(x, targets[:, None].float()))
    torch.testing.assert_close(loss((x,), (t,), targets), F.mse_loss(x, targets[:, None].float()))
    scores = find_loss("mse", case_graph("logits"))
    a, b = torch.randn(5, 6), torch.randn(5, 6)
    torch.testing.assert_close(scores((a,), (b,), targets), F.mse_loss(a, b))
    with pytest.raises(OptionError, match=r"labels of shape \(5,\) do not fit output 'y' of shape \(5, 6\)"):
        scores((a,), (b,), targets.float())


def test_own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text(
        "def total(outputs, labels):\n    return outputs[0].sum() * labels\n"
        "def wrong(outputs, labels):\n    return outputs[0]\n"
        "def number(outputs, labels):\n    return 1.0\n"
    )
    (tmp_path / "my_broken.py").write_text("import nowhere_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    graph = case_graph("logits")
    loss = find_loss("python:my_losses:total", graph)
    assert (loss.needs_teacher, loss.needs_labels) == (False, False)
    assert float(loss([torch.ones(2, 3)], None, torch.tensor([2.0]))) == 12.0
    for name, sentence in {
        "python:my_losses:wrong": r"must return one number in a tensor, not a tensor of shape \(2, 3\)",
        "python:my_losses:number": "must return one number in a tensor, not float",
    }.items():
        with pytest.raises(OptionError, match=sentence):
            find_loss(name, graph)([torch.ones(2, 3)], None, None)
    for name, sentence in {
        "python:my_losses": "write python:package.module:function",
        "python:my_losses:absent": "module my_losses has no function absent",
        "python:my_absent:f": "importing my_absent failed with ModuleNotFoundError",
        "python:my_broken:f": "importing my_broken failed with ModuleNotFoundError: .*nowhere_at_all",
        "distil": "unknown loss 'distil': did you mean 'distill'",
    }.items():
        with pytest.raises(OptionError, match=sentence):
            find_loss(name, graph)


@pytest.mark.parametrize("case", ["logits", "softmax", "sigmoid", "image"])
def test_losses_under_autocast(case: str) -> None:
    """Half-precision outputs give a float32 loss, that of the same numbers in float32."""
    torch.manual_seed(0)
    views = {"softmax": lambda x: x.softmax(1), "sigmoid": lambda x: x.sigmoid()}
    s, t = (views.get(case, lambda x: x)(torch.randn(4, 6)).bfloat16() for _ in range(2))
    loss = find_loss("distill", case_graph(case))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss((s,), (t,), None)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss((s.float(),), (t.float(),), None), rtol=0, atol=0)


# -- averages -----------------------------------------------------------------------------------------


def test_average_by_hand() -> None:
    net = nn.BatchNorm1d(1)
    average = Average(net, decay=0.5)
    expected, weight = 1.0, [3.0, 5.0, -1.0, 2.0, 8.0, 1.0, 0.0, 4.0, 6.0, 7.0, 9.0, 1.0]
    for t, value in enumerate(weight):
        with torch.no_grad():
            net.weight.fill_(value)
            net.running_mean.fill_(value)
            net.num_batches_tracked.fill_(t + 1)
        average.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * value
    assert float(average.averages["weight"]) == pytest.approx(expected, rel=1e-5)
    assert int(average.averages["num_batches_tracked"]) == 12
    with average.applied():
        assert float(net.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(net.weight.detach()) == 1.0
    average.copy_to_module()
    assert float(net.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert net.weight.requires_grad


def test_average_of_what_does_not_move_is_exact() -> None:
    net = Net()
    average = Average(net, decay=0.98)
    for _ in range(5):
        average.update()
    own = {name: value.clone() for name, value in net.state_dict().items()}
    with average.applied():
        assert all(torch.equal(own[name], value) for name, value in net.state_dict().items())


def test_average_goes_on(tmp_path: Path) -> None:
    nets, averages = [Net(), Net()], []
    for net in nets:
        averages.append(Average(net, decay=0.9))
        train(net, build_optimizer("sgd", net.named_parameters(), lr=0.1), 0, 3)
    averages[0].update()
    torch.save(averages[0].state_dict(), tmp_path / "a.pt")
    averages[1].load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
    for average in averages:
        average.update()
    assert averages[1].steps == 2
    assert all(torch.equal(v, averages[1].averages[k]) for k, v in averages[0].averages.items())


def test_an_exception_does_not_leave_the_averages_inside() -> None:
    net = Net()
    average = Average(net, decay=0.9)
    train(net, build_optimizer("sgd", net.named_parameters(), lr=0.1), 0, 2)
    own = net.conv.weight.detach().clone()

    def fail() -> None:
        with average.applied():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(net.conv.weight, own)


def test_output_views_fit_any_batch() -> None:
    out = Output(0, "y", Kind.probabilities, (1, 6, 4, 5), 6, 20)
    assert out.by_class(torch.zeros(3, 120)).shape == (3, 6, 20)
