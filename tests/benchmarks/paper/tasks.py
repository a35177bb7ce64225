"""The tasks: their data, what is minimised, what is measured, and the recipe that all methods share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.paper import bccd, camvid, cifar10
from tests.benchmarks.paper.store import CACHE, claim

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Task:
    """``write(folder)`` makes the three .npz files; ``recipe``: Recipe's fields, shared by all methods."""

    name: str
    write: Callable[[Path], None]
    shape: tuple[int, int, int]
    metric: str
    title: str
    recipe: dict[str, Any] = field(default_factory=dict)

    def files(self) -> dict[str, Path]:
        """Split -> file; written on first use."""
        folder = CACHE / self.name
        found = {split: folder / f"{split}.npz" for split in SPLITS}
        if not folder.exists():
            with claim(f"data {self.name}") as mine:
                if not mine:
                    raise SystemExit(f"another process writes {folder}: start again in a minute")
                unfinished = folder.with_name(f"{self.name}.part")
                unfinished.mkdir(parents=True, exist_ok=True)
                self.write(unfinished)
                unfinished.rename(folder)
        return found


COMMON = {
    "optimizer": "adam",
    "scheduler": "cosine",
    "warmup_steps": 20,
    "grad_clip": 1.0,
    "threads": 1,
}

_DETECTION = "python:tests.benchmarks.paper.detection"

TASKS = {
    task.name: task
    for task in (
        Task(
            "cifar10",
            cifar10.write,
            cifar10.SHAPE,
            "accuracy",
            "accuracy",
            {**COMMON, "loss": "cross-entropy", "augment": "light", "batch_size": 128},
        ),
        Task(
            "camvid",
            camvid.write,
            camvid.SHAPE,
            "miou",
            "mean IoU",
            {**COMMON, "loss": "cross-entropy", "augment": "light", "batch_size": 8},
        ),
        Task(
            "bccd",
            bccd.write,
            bccd.SHAPE,
            f"{_DETECTION}_metric:mean_average_precision",
            "AP@[.5:.95]",
            {**COMMON, "loss": f"{_DETECTION}_loss:loss", "augment": "none", "batch_size": 8},
        ),
    )
}
