"""What masks cost a training step: ``make bench`` prints the ratios and fails where a promise is broken.

A masked step in the middle of a search (forward, loss, backward, Adam on weights and masks, ``step()``) against
the plain step on the same fx module. Steps alternate in one run on one thread, so that whatever else the
machine does falls on both; the figure is the median of the ratios of neighbours.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="trained masks need torch")

import torch
import torch.nn.functional as F
from torch import fx

from graphprune.api import load
from graphprune.fx.importer import import_model
from graphprune.search.search import Search
from sample_models import export

RESNET = Path(__file__).resolve().parents[2] / "sample_models" / "resnet20_cifar10.onnx"
BATCH = 32
CLASSES = 10
PAIRS = 120
WARM_UP = 8
PROMISES = {"channel": 1.05, "block": 1.10}
SEARCH_STEPS = 10_000


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    return export("mobilenet_v2", tmp_path_factory.mktemp("masked") / "mobilenet_v2.onnx")


def plain_step(path: Path, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    module = import_model(load(path).ir).module
    return training_step(module, torch.optim.Adam(module.parameters(), lr=1e-3), images, labels)


def masked_step(path: Path, structure: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    search = Search(path, structure=structure, sparsity=0.5, max_steps=SEARCH_STEPS)
    search.load(search.state() | {"steps": SEARCH_STEPS // 2})
    search.step()
    train = training_step(search.module, torch.optim.Adam(search.parameters(), lr=1e-3), images, labels)

    def step() -> None:
        train()
        search.step()

    return step


def training_step(
    module: fx.GraphModule, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> Callable[[], None]:
    module.train()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        optimizer.step()

    return step


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(plain: Callable[[], None], masked: Callable[[], None]) -> tuple[float, list[float]]:
    """Seconds of a plain step, and the ratios of masked to plain, sorted."""
    for _ in range(WARM_UP):
        plain()
        masked()
    alone, ratios = [], []
    for i in range(PAIRS):  # who goes first alternates as well
        if i % 2:
            second, first = seconds(masked), seconds(plain)
        else:
            first, second = seconds(plain), seconds(masked)
        alone.append(first)
        ratios.append(second / first)
    return statistics.median(alone), sorted(ratios)


@pytest.mark.parametrize("structure", PROMISES)
@pytest.mark.parametrize("network", ["resnet20", "mobilenet_v2"])
def test_a_masked_step_costs_little_more(network: str, structure: str, mobilenet: Path) -> None:
    path, size = (RESNET, 32) if network == "resnet20" else (mobilenet, 64)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, size, size, generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    alone, ratios = compare(plain_step(path, images, labels), masked_step(path, structure, images, labels))
    ratio, promise = statistics.median(ratios), PROMISES[structure]
    low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
    print(
        f"\n{network}, {structure}, batch {BATCH}: masked / plain step {ratio:.3f} "
        f"(quartiles {low:.3f} to {high:.3f}; plain {alone * 1e3:.1f} ms; promise: {promise:.2f})"
    )
    assert ratio <= promise
