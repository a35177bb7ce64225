"""The networks: which task, how they are built, and how long the dense ones are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.paper.store import CACHE
from tests.benchmarks.paper.tasks import TASKS, Task
from tests.benchmarks.trained import ROOT


@dataclass(frozen=True)
class Network:
    """``build()`` gives the untrained module; ``epochs``, ``lr``, ``weight_decay``: of the dense training.

    ``file``: a network that is shipped trained.
    """

    name: str
    task: Task
    build: Callable[[], object] | None = None
    epochs: int = 0
    lr: float = 0.1
    weight_decay: float = 5e-4
    optimizer: str = "sgd"
    file: Path | None = None

    @property
    def path(self) -> Path:
        """The trained network."""
        return self.file or CACHE / "dense" / f"{self.name}.onnx"


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet20", TASKS["cifar10"], file=ROOT / "sample_models" / "resnet20_cifar10.onnx"),
    )
}
