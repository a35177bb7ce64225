"""Every method on every structure that it declares, on two networks: budget, proof, the same again under a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="methods that train need torch")

import torch

import graphprune
from graphprune.catalog import all_methods
from graphprune.criteria import all_criteria
from graphprune.methods import all_trained, searching
from graphprune.search.search import Search
from sample_models import export

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
WORDS: dict[str, dict[str, Any]] = {
    "channel": {"sparsity": 0.5},
    "block": {"sparsity": 0.7, "block": "16x8x1x1"},
    "nm": {"nm": "2:4"},
}
STEPS = 4
SEARCHING = {**all_criteria(), **all_trained()}
"""Methods that look at a module; the others have tests of their own (test_calibration.py, test_branches.py)."""

OF_100_STEPS = ("pso", "synflow")
"""Too slow here for a second round."""

OF_EVERY_KIND = {"smart", "gmp", "snip", "magnitude"}
"""Methods that are run on the larger network, too, at every change: one or more of every kind."""

PAIRS = [(m.name, s) for m in all_methods() for s in m.structures if m.name in SEARCHING and s in WORDS]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("matrix")
    return {"resnet20": RESNET, "bisenet_v2": export("bisenet_v2", folder / "bisenet_v2.onnx")}


def pruned(path: Path, method: str, structure: str, shape: tuple[int, ...]) -> graphprune.PruneResult:
    """A few steps of distillation on noise, in two rounds where the method has rounds."""
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(shape, generator=generator) for _ in range(STEPS)]
    rounds = 2 if searching(method).one_shot and method not in OF_100_STEPS else None
    search = Search(
        path,
        method=method,
        structure=structure,
        max_steps=STEPS,
        rounds=rounds,
        batches=[(batches[0],)],
        **WORDS[structure],
    )
    optimizer = torch.optim.Adam(search.parameters(), lr=1e-4)
    search.module.train()
    for x in batches:
        mine, wanted = search.module(x), search.original(x)
        pairs = [(mine, wanted)] if isinstance(mine, torch.Tensor) else zip(mine, wanted, strict=True)
        loss = torch.stack([(a - b).square().mean() for a, b in pairs]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        search.step(optimizer)
    search.finish()
    return search.result()


CASES = [("resnet20", *pair) for pair in PAIRS] + [
    pytest.param("bisenet_v2", *pair, marks=[pytest.mark.slow] * (pair[0] not in OF_EVERY_KIND))
    for pair in PAIRS
]


@pytest.mark.parametrize(("network", "method", "structure"), CASES)
def test_every_method_on_every_structure(
    network: str, method: str, structure: str, networks: dict[str, Path]
) -> None:
    shape = (2, 3, 32, 32) if network == "resnet20" else (2, 3, 64, 64)
    first = pruned(networks[network], method, structure, shape)
    wanted = WORDS[structure].get("sparsity", 0.5)
    assert first.plan.budget["achieved"] == pytest.approx(wanted, abs=0.02)
    assert first.plan.method == method
    assert first.fidelity.holds
    assert first.plan.fidelity["module"] <= 1e-4
    if (
        network == "resnet20" and method not in all_criteria()
    ):  # a criterion is a function of the weights alone
        second = pruned(networks[network], method, structure, shape)
        assert second.plan.to_json() == first.plan.to_json()
        for name, value in first.model.ir.graph.initializers.items():
            assert np.array_equal(value.const_value, second.model.ir.graph.initializers[name].const_value), (
                name
            )
