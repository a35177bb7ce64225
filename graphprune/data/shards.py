"""A folder of .npy or .npz shards as data: one shard at a time, so that memory stays bounded.

Shuffling permutes the shards, and the samples inside each one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphprune.data.arrays import stored_normalisation
from graphprune.data.columns import Columns, columns
from graphprune.data.fitting import Fit, Normalisation, describe
from graphprune.data.order import batch_count, generator, parts, permuted
from graphprune.data.samples import Batch, InputSpec
from graphprune.data.storage import read_arrays, read_headers
from graphprune.errors import DataError

SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True)
class Shard:
    """One file, whose samples are numbered from ``first`` on."""

    path: Path
    table: Columns
    first: int


class ShardSource:
    """Samples in the files of a folder, in the order of their names."""

    def __init__(self, name: str, shards: Sequence[Shard]) -> None:
        self.name = name
        self.labelled = shards[0].table.labelled
        self._shards = tuple(shards)
        self._samples = sum(s.table.samples for s in shards)
        self.size: int | None = self._samples

    def shape(self) -> dict[str, tuple[int, ...]]:
        """See Source."""
        return self._shards[0].table.shape()

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
        """See Source. Skipped shards are not read."""
        reader = _Reader(self._shards, epoch, seed, shuffle=shuffle)
        ranges = parts(self._samples, batch_size, drop_last=drop_last, rank=rank, world=world, skip=skip)
        for part in ranges:
            yield reader.read(part.start, part.stop)


class _Reader:
    """One epoch as a row of samples, read from front to back; it holds one shard."""

    def __init__(self, shards: Sequence[Shard], epoch: int, seed: int, *, shuffle: bool) -> None:
        order = permuted(len(shards), generator(seed, epoch), shuffle=shuffle)
        self._shards: list[Shard] = [shards[i] for i in order]
        self._ends = np.cumsum([s.table.samples for s in self._shards])
        self._random = [generator(seed, epoch, int(i)) for i in order]
        self._shuffle = shuffle
        self._current = -1
        self._arrays: dict[str, np.ndarray] = {}
        self._order = np.empty(0, np.int64)

    def read(self, start: int, stop: int) -> Batch:
        """The samples at positions ``start`` to ``stop`` of the epoch."""
        pieces: list[dict[str, np.ndarray]] = []
        indices = []
        while start < stop:
            self._open(int(np.searchsorted(self._ends, start, side="right")))
            shard = self._shards[self._current]
            end = int(self._ends[self._current])
            first = end - shard.table.samples
            rows = self._order[start - first : min(stop, end) - first]
            pieces.append({name: array[rows] for name, array in self._arrays.items()})
            indices.append(rows + shard.first)
            start = min(stop, end)
        table = self._shards[0].table
        joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in table.names}
        return table.batch(joined, np.concatenate(indices))

    def _open(self, number: int) -> None:
        if number == self._current:
            return
        self._arrays = {}  # lets go of the last shard before the next one is read
        shard = self._shards[number]
        self._arrays = read_arrays(shard.path, shard.table.names)
        self._order = permuted(shard.table.samples, self._random[number], shuffle=self._shuffle)
        self._current = number


def open_shards(
    folder: Path, files: Sequence[Path], inputs: Sequence[InputSpec], wanted: Normalisation | None
) -> ShardSource:
    """``files`` of ``folder`` (which names the source); every one must hold the same arrays.

    A .npy file is the only input of a graph, without labels. Raises DataError, OptionError.
    """
    normalisation = wanted
    shards: list[Shard] = []
    first = 0
    for path in sorted(files):
        if path.suffix == ".npy" and len(inputs) != 1:
            raise DataError(
                f"{path} feeds one input, but the model has {len(inputs)}: store .npz files with arrays"
                f" named {', '.join(repr(s.name) for s in inputs)}"
            )
        headers = read_headers(path)
        if not shards and normalisation is None:
            normalisation = stored_normalisation(path, headers, inputs)
        table = columns(headers, inputs, normalisation, str(path))
        if shards:
            _same(shards[0], path, table)
        shards.append(Shard(path, table, first))
        first += table.samples
    return ShardSource(str(folder), shards)


def _same(reference: Shard, path: Path, table: Columns) -> None:
    """Raises DataError for a shard that cannot stand in a batch with the first one."""
    known = reference.table
    if (table.labels is None) != (known.labels is None):
        without = reference.path if table.labelled else path
        raise DataError(f"{without} has no labels, but other shards have: store them in all, or in none")
    if _kinds(table) != _kinds(known):
        raise DataError(
            f"{path} holds {_text(table)}, but {reference.path} holds {_text(known)}: store all shards alike"
        )


def _kinds(table: Columns) -> list[object]:
    """What must be equal in all shards: names, shapes and the kind of number."""
    labels = table.labels and (table.labels.shape[1:], table.labels.dtype.kind)
    return [labels, *((name, f.axes, f.sample, f.scale) for name, f in _pairs(table))]


def _pairs(table: Columns) -> Iterator[tuple[str, Fit]]:
    return zip(table.arrays, table.fits, strict=True)


def _text(table: Columns) -> str:
    parts = [f"{name!r} ({describe(f.sample)}{', bytes' if f.scale else ''})" for name, f in _pairs(table)]
    if table.labels:
        parts.append(f"labels ({describe(table.labels.shape[1:])}, {table.labels.dtype.name})")
    return ", ".join(parts)
