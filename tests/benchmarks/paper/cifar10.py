"""CIFAR-10 as the files that ``graphprune prune`` reads.

50,000 training images; of the 10,000 that no network was trained on, the first 5,000 are for choosing settings and the
last 5,000 are the test set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.benchmarks.one_shot import datasets

MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
STD = np.array([0.2470, 0.2435, 0.2616], np.float32)
SHAPE = (3, 32, 32)


def write(folder: Path) -> None:
    """``train.npz``, ``validation.npz`` and ``test.npz``: uint8 images NCHW, int64 labels, mean and std."""
    (x, y), (held, held_y) = datasets().cifar10()
    half = len(held) // 2
    splits = {
        "train": (x, y),
        "validation": (held[:half], held_y[:half]),
        "test": (held[half:], held_y[half:]),
    }
    for name, (images, labels) in splits.items():
        np.savez(
            folder / f"{name}.npz",
            input=images.transpose(0, 3, 1, 2),
            labels=labels.astype(np.int64),
            mean=MEAN,
            std=STD,
        )
