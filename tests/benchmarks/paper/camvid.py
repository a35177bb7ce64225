"""CamVid as the files that ``graphprune prune`` reads: road scenes, 11 classes, the splits of the data set.

Images of 240x180 are cut to their middle 224x160, because BiSeNet halves five times.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.benchmarks.one_shot import datasets

MEAN = np.array([0.41, 0.43, 0.43], np.float32)
STD = np.array([0.30, 0.31, 0.31], np.float32)
CLASSES = 11
VOID = 11
SHAPE = (3, 160, 224)


def write(folder: Path) -> None:
    """``train.npz``, ``validation.npz`` and ``test.npz``: uint8 images NCHW, int64 labels NHW, mean and std."""
    splits = datasets().camvid()
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        images, labels = (_middle(x) for x in splits[split])
        np.savez(
            folder / f"{name}.npz",
            input=np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
            labels=labels.astype(np.int64),
            mean=MEAN,
            std=STD,
        )


def _middle(x: np.ndarray) -> np.ndarray:
    """[n, 180, 240, ...] -> [n, 160, 224, ...]."""
    _, height, width = SHAPE
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]
