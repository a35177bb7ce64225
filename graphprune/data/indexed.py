"""Data whose samples can be read in any order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from graphprune.data.order import batch_count, generator, parts, permuted
from graphprune.data.samples import Batch


class IndexedSource(ABC):
    """A Source of ``samples`` samples, each of which ``take`` reads by its number."""

    def __init__(self, name: str, samples: int, *, labelled: bool) -> None:
        self.name = name
        self.size: int | None = samples
        self.labelled = labelled
        self._samples = samples

    @abstractmethod
    def shape(self) -> dict[str, tuple[int, ...]]:
        """See Source."""

    @abstractmethod
    def take(self, indices: np.ndarray) -> Batch:
        """The samples with these numbers, int64 ``[n]``. Raises DataError."""

    def length(self, batch_size: int, *, drop_last: bool = True) -> int | None:
        """See Source."""
        return batch_count(self._samples, batch_size, drop_last=drop_last)

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
        """See Source."""
        order = permuted(self._samples, generator(seed, epoch), shuffle=shuffle)
        for part in parts(self._samples, batch_size, drop_last=drop_last, rank=rank, world=world, skip=skip):
            yield self.take(order[part])
