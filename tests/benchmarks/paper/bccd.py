"""BCCD (blood cells: red, white and platelets, with boxes) as the files that ``graphprune prune`` reads.

The data set's own splits. The training images come twice, as they are and mirrored, as no other augmentation can move
the boxes along.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.one_shot import datasets

MEAN = np.array([0.7376, 0.6965, 0.7151], np.float32)
STD = np.array([0.0603, 0.1016, 0.0752], np.float32)
CLASSES = 3
SHAPE = (3, 256, 320)
NO_BOX = -1
SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""File -> the data set's name of the split."""


def write(folder: Path) -> None:
    """``train.npz``, ``validation.npz`` and ``test.npz``: uint8 images NCHW, boxes as of ``padded``, mean and std."""
    _, height, width = SHAPE
    splits = datasets().bccd(size=(width, height))
    for name, split in SPLITS.items():
        images = np.stack([image for image, _ in splits[split]]).transpose(0, 3, 1, 2)
        labels = padded([centred(corners) for _, corners in splits[split]])
        if name == "train":
            flipped, boxes = mirrored(images, labels)
            images, labels = np.concatenate((images, flipped)), np.concatenate((labels, boxes))
        np.savez(folder / f"{name}.npz", input=images, labels=labels, mean=MEAN, std=STD)


def centred(corners: np.ndarray) -> np.ndarray:
    """Boxes ``[k, 5]`` of class, x1, y1, x2, y2 as class, centre x, centre y, width, height, without empty ones."""
    low, high = corners[:, 1:3], corners[:, 3:5]
    boxes = np.concatenate((corners[:, :1], (low + high) / 2, high - low), 1)
    return boxes[(boxes[:, 3:] > 0).all(1)]


def padded(boxes: Sequence[np.ndarray]) -> np.ndarray:
    """The boxes ``[k, 5]`` of each image as one array ``[n, K, 5]``, float32; rows that are no box have class -1."""
    labels = np.zeros((len(boxes), max(map(len, boxes)), 5), np.float32)
    labels[..., 0] = NO_BOX
    for row, found in zip(labels, boxes, strict=True):
        row[: len(found)] = found
    return labels


def mirrored(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[n, c, h, w]`` and their boxes ``[n, K, 5]`` with left and right swapped."""
    boxes = labels.copy()
    real = boxes[..., 0] != NO_BOX
    boxes[real, 1] = images.shape[3] - boxes[real, 1]
    return images[..., ::-1], boxes
