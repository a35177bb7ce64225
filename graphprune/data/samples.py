"""What data becomes: what an input takes, a batch, where batches come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


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

    inputs: one array ``[n, ...]`` per graph input, in the graph's order and number types (bfloat16 is
    that of ml_dtypes), C-contiguous. labels: int64 ``[n]`` classes, int64 ``[n, height, width]`` classes
    of pixels, or any target ``[n, ...]`` in float32; None without labels.
    indices: int64 ``[n]``, the numbers of the samples where a source can tell them apart, so that what
    depends on a sample alone can be kept between epochs; else None.
    """

    inputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None
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
