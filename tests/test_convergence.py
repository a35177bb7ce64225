"""The paper's claim about the temperature, on problems whose answer is known.

Half of the units of a small network contribute nothing to its outputs, and the masks start with just those
on top. With a falling temperature SMART finds the other half; at a low one the masks are frozen where they
start; at a high one they never decide, and hardening them is a shock (theorem 2.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch", reason="trained masks need torch")

import torch

from graphprune.search.search import Search

IMAGE = (3, 6, 6)
CONV, HIDDEN, OUTPUTS = 12, 12, 8
USEFUL_CONV, USEFUL_HIDDEN = 4, 8
"""12 of 24 units: half, but not half of each layer, so the shares of the layers must be found too."""
STEPS, BATCH, LR = 800, 64, 1e-4
"""The weights move slowly: faster ones make up for a wrong mask before it has moved."""
AS_PUBLISHED = {"budget_anneal": 0.0, "snap": 0.0}
SEEDS = [0, 1, 2]
Planted = dict[str, set[int]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows of length 1, at right angles: units that matter equally."""
    return np.linalg.qr(rng.standard_normal((columns, rows)))[0].T


def planted_network(seed: int) -> tuple[onnx.ModelProto, Planted]:
    """conv -> Relu -> fc1 -> Relu -> fc2, and the useless output channels of conv and fc1.

    Of these, half are dead (for inputs in [-1, 1] their activation is never positive) and half are read by
    weights of 0. The useful ones matter alike: rows at right angles, and fc1 sees deviations from the mean.
    """
    rng = np.random.default_rng(seed)
    conv, conv_bias = orthonormal(rng, CONV, 27).reshape(CONV, 3, 3, 3), np.zeros(CONV)
    fc1, fc1_bias = orthonormal(rng, HIDDEN, CONV * 16).reshape(HIDDEN, CONV, 16), np.zeros(HIDDEN)
    fc1 -= fc1.mean(2, keepdims=True)
    fc2 = np.zeros((OUTPUTS, HIDDEN))
    dead, unread = np.split(rng.permutation(CONV)[USEFUL_CONV:], 2)
    useless = {"conv.weight": {*dead.tolist(), *unread.tolist()}}
    conv_bias[dead] = -np.abs(conv[dead]).sum((1, 2, 3))
    fc1[:, unread] = 0
    largest = np.maximum(conv_bias + np.abs(conv).sum((1, 2, 3)), 0)  # of every activation that fc1 reads
    useful, dead, unread = np.split(rng.permutation(HIDDEN), [USEFUL_HIDDEN, (USEFUL_HIDDEN + HIDDEN) // 2])
    useless["fc1.weight"] = {*dead.tolist(), *unread.tolist()}
    fc1_bias[dead] = -(np.abs(fc1[dead]).sum(2) * largest).sum(1)
    fc2[:, useful] = orthonormal(rng, USEFUL_HIDDEN, OUTPUTS).T
    fc2[:, dead] = orthonormal(rng, len(dead), OUTPUTS).T
    weights = {
        "conv.weight": conv,
        "conv.bias": conv_bias,
        "fc1.weight": fc1.reshape(HIDDEN, -1),
        "fc1.bias": fc1_bias,
        "fc2.weight": fc2,
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "fc1.weight", "fc1.bias"], ["d"], transB=1),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "fc2.weight"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *IMAGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", OUTPUTS])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, useless


@dataclass(frozen=True)
class Errors:
    """Of the last step under soft masks, and under the hard ones: shares of the outputs' variance."""

    soft: float
    hard: float
    undecided: float


def train(search: Search, dead_inputs: torch.Tensor, lr: float, seed: int) -> Errors:
    """Masks and weights, towards the outputs of the original; inputs in [-1, 1], 0 where ``dead_inputs``."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(search.parameters(), lr=lr)
    search.module.train()
    for _ in range(STEPS):
        x = 2 * torch.rand(BATCH, *dead_inputs.shape, generator=generator) - 1
        x[:, dead_inputs] = 0
        target = search.original(x)
        loss = (search.module(x) - target).square().mean() / target.var()
        undecided = search.masking.undecided()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step()
    with torch.no_grad():
        hard = (search.module(x) - target).square().mean() / target.var()
    return Errors(loss.item(), hard.item(), undecided)


def planted_search(seed: int, *, order: str = "wrong", **recipe: float) -> tuple[Search, Planted]:
    """A search at 50 % whose first logits are near 1 for useless units and near -1 for the others ("wrong"),
    or all the same ("none")."""
    model, useless = planted_network(seed)
    search = Search(
        model, sparsity=0.5, max_steps=STEPS, multiple_of=1, seed=seed, mask_init="constant", **recipe
    )
    if order == "wrong":
        on_top = [i in useless["conv.weight"] for i in range(CONV)]
        on_top += [i in useless["fc1.weight"] for i in range(HIDDEN)]
        noise = 0.1 * np.random.default_rng(seed).standard_normal(CONV + HIDDEN)
        with torch.no_grad():
            search.masking.parameters()[0].copy_(torch.from_numpy(np.where(on_top, 1.0, -1.0) + noise))
        search.masking.refresh()
    return search, useless


def removed(search: Search) -> Planted:
    """Output channels of each layer that the finished search removes."""
    plan, _ = search.finish()
    return {name: set(plan.removed.get(name, {}).get("0", [])) for name in ("conv.weight", "fc1.weight")}


EVERYTHING_ALIVE = torch.zeros(IMAGE, dtype=torch.bool)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("order", "recipe"), [("wrong", {}), ("wrong", AS_PUBLISHED), ("none", {})])
def test_a_falling_temperature_finds_the_planted_units(
    order: str, recipe: dict[str, float], seed: int
) -> None:
    search, useless = planted_search(seed, order=order, **recipe)
    errors = train(search, EVERYTHING_ALIVE, LR, seed)
    assert removed(search) == useless
    assert errors.undecided == 0
    assert errors.hard < 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_low_temperature_freezes_the_masks(seed: int) -> None:
    search, useless = planted_search(seed, init_temp=1e-4, final_temp=1e-4, **AS_PUBLISHED)
    (logits,) = search.masking.parameters()
    start = logits.detach().clone()
    errors = train(search, EVERYTHING_ALIVE, LR, seed)
    assert torch.equal(logits, start)
    found = removed(search)
    assert not any(found[name] & units for name, units in useless.items())
    assert errors.hard > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_high_temperature_decides_nothing(seed: int) -> None:
    """The weights make up for masks between 0 and 1 (theorem 2.5), and are lost when those become 0 and 1."""
    search, _ = planted_search(seed, init_temp=10.0, final_temp=10.0, **AS_PUBLISHED)
    errors = train(search, EVERYTHING_ALIVE, LR, seed)
    assert errors.undecided > 0.9
    assert errors.hard > 2 * errors.soft

    search, _ = planted_search(seed, **AS_PUBLISHED)
    errors = train(search, EVERYTHING_ALIVE, LR, seed)
    assert errors.undecided == 0
    assert errors.hard == pytest.approx(errors.soft, rel=0.1)


def planted_rows(seed: int) -> tuple[onnx.ModelProto, np.ndarray]:
    """y = W x, and the inputs that are always 0: two of every four, in no regular order.

    Their weights, which cannot matter, are half as large again as the others.
    """
    rng = np.random.default_rng(seed)
    zero = np.concatenate([rng.permutation([True, True, False, False]) for _ in range(4)])
    weight = rng.choice([-1.0, 1.0], (6, 16)) * rng.uniform(0.8, 1.2, (6, 16)) * np.where(zero, 1.5, 1.0)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1)],
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 6])],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), zero


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("falls", [True, False])
def test_rows_too(falls: bool, seed: int) -> None:
    """2:4, where the weights themselves compete (algorithm 2)."""
    model, zero = planted_rows(seed)
    recipe = {} if falls else {"init_temp": 1e-4, "final_temp": 1e-4}
    search = Search(model, structure="nm", nm="2:4", max_steps=STEPS, **recipe)
    start = search.weights()["weight"].detach().clone()
    errors = train(search, torch.from_numpy(zero), 0.1, seed)
    kept = search.masking.hard.decision["weight"]
    assert (kept == (~zero if falls else zero)).all()
    assert errors.undecided == 0
    if falls:
        assert errors.hard < 1e-3
    else:
        assert torch.equal(search.weights()["weight"], start)
        assert errors.hard == pytest.approx(1, abs=0.3)
