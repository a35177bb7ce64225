"""In which order samples are read, and which of them a process reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphprune.errors import DataError, OptionError


def generator(seed: int, *numbers: int) -> np.random.Generator:
    """Random numbers for the place that ``numbers`` name (an epoch, a shard); any integer is a seed."""
    return np.random.default_rng([seed % 2**64, *(n + 1 for n in numbers)])  # numpy ignores zeros at the end


def permuted(count: int, rng: np.random.Generator, *, shuffle: bool) -> np.ndarray:
    """int64 ``[count]``: 0..count-1, shuffled or not."""
    return rng.permutation(count) if shuffle else np.arange(count)


def batch_count(samples: int, batch_size: int, *, drop_last: bool) -> int:
    """Batches in an epoch; fewer samples than a batch are one batch. Raises OptionError."""
    if batch_size < 1:
        raise OptionError(f"a batch of {batch_size} samples is impossible: give --batch-size 1 or more")
    if drop_last and samples >= batch_size:
        return samples // batch_size
    return -(-samples // batch_size)


def parts(
    samples: int, batch_size: int, *, drop_last: bool, rank: int = 0, world: int = 1, skip: int = 0
) -> Iterator[slice]:
    """What ``rank`` reads of every batch from number ``skip`` on, as positions in the epoch's order.

    With ``drop_last`` (training) every process gets at least one sample of every batch, and equally many
    of a full one; without, a process is passed over when a last batch is too small for all.

    Raises OptionError when a batch cannot be divided evenly, DataError for too few samples.
    """
    count = batch_count(samples, batch_size, drop_last=drop_last)
    if drop_last and batch_size % world:
        raise OptionError(
            f"a batch of {batch_size} cannot be divided evenly among {world} processes: choose a multiple"
            f" of {world} for --batch-size"
        )
    if drop_last and samples < world:
        raise DataError(
            f"{samples} samples are too few for {world} processes: give more data, or start fewer processes"
        )
    for number in range(skip, count):
        start, stop = number * batch_size, min((number + 1) * batch_size, samples)
        part = share(stop - start, rank, world)
        if part.start < part.stop:
            yield slice(start + part.start, start + part.stop)


def share(rows: int, rank: int, world: int) -> slice:
    """The rows of a batch that belong to ``rank``; all ranks together have each row once."""
    return slice(rows * rank // world, rows * (rank + 1) // world)
