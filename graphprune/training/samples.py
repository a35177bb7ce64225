"""What flows from data to the training loop: what an input takes, a batch, where batches come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from graphprune.errors import DataError

IGNORE = 255
"""A pixel of this class (where the model has no such class) belongs to none."""


@dataclass(frozen=True)
class InputSpec:
    """What a graph input takes. None is a dynamic size; axis 0 is the batch, whatever its size says."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def sample(self) -> tuple[int | None, ...]:
        """The shape of one sample."""
        return self.shape[1:]


@dataclass
class Batch:
    """Some samples.

    inputs: one tensor ``[n, ...]`` per graph input, in the graph's order. labels: ``[n]`` classes,
    ``[n, height, width]`` classes of pixels, or any target ``[n, ...]``; None without labels.
    indices: int64 ``[n]``, the numbers of the samples where a source can tell them apart, so that what
    depends on a sample alone can be kept between epochs; else None.
    """

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None = None
    indices: np.ndarray | None = None


class Source(Protocol):
    """Data that can be read once per epoch, in an order that (seed, epoch) alone decides."""

    @property
    def name(self) -> str:
        """What the user called it."""

    @property
    def size(self) -> int | None:
        """The number of samples, where it is known."""

    @property
    def labelled(self) -> bool:
        """Whether batches have labels."""

    def shape(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample of every graph input."""

    def length(self, batch_size: int, *, drop_last: bool = True) -> int | None:
        """The number of batches in an epoch, where it is known.

        Fewer samples than ``batch_size`` are one smaller batch, also with ``drop_last``.
        """

    def batches(
        self,
        batch_size: int,
        *,
        epoch: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """One epoch without its first ``skip`` batches.

        ``batch_size`` counts the samples of all ``world`` processes: together they see the batches that
        one process sees, each its own part. Raises DataError and OptionError.
        """


def in_range(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """bool, shaped like ``labels``: which of them name one of ``classes`` classes."""
    return (labels >= 0) & (labels < classes)


def check_labels(labels: torch.Tensor, classes: int) -> None:
    """Compare class labels with the number of classes of a model.

    labels: integers ``[n]`` in 0..classes-1, or ``[n, height, width]``, where a negative number, 255 and
    ``classes`` itself (the usual numbers for "no class") are allowed besides. Raises DataError.
    """
    if labels.is_floating_point():
        raise DataError(
            f"labels hold {_dtype_name(labels)} instead of class numbers: store integers, or choose a loss"
            " for targets such as mse"
        )
    wrong = ~in_range(labels, classes)
    if labels.ndim > 1:
        wrong &= (labels > classes) & (labels != IGNORE)
    if wrong.any():
        worst = int(labels[wrong][0])
        raise DataError(
            f"label {worst} is out of range: the model has {classes} classes, so labels go from 0 to"
            f" {classes - 1}; check that data and model belong together"
        )


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
