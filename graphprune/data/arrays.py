"""A .npz file as data: read on first use, kept as stored, made to fit per batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from graphprune.data.columns import CONSTANTS, Columns, columns
from graphprune.data.fitting import Normalisation
from graphprune.data.indexed import IndexedSource
from graphprune.data.samples import Batch, InputSpec
from graphprune.data.storage import Header, read_arrays, read_headers


class ArraySource(IndexedSource):
    """Samples in the arrays of one .npz file."""

    def __init__(self, path: Path, table: Columns) -> None:
        super().__init__(str(path), table.samples, labelled=table.labelled)
        self._path = path
        self._table = table
        self._arrays: dict[str, np.ndarray] | None = None

    def shape(self) -> dict[str, tuple[int, ...]]:
        """See Source."""
        return self._table.shape()

    def take(self, indices: np.ndarray) -> Batch:
        """See IndexedSource."""
        if self._arrays is None:
            self._arrays = read_arrays(self._path, self._table.names)
        return self._table.batch({name: a[indices] for name, a in self._arrays.items()}, indices)


def open_npz(path: Path, inputs: Sequence[InputSpec], wanted: Normalisation | None) -> ArraySource:
    """Arrays named like the graph's inputs, and perhaps ``labels``, ``mean`` and ``std``.

    Raises DataError, OptionError.
    """
    headers = read_headers(path)
    normalisation = wanted or stored_normalisation(path, headers, inputs)
    return ArraySource(path, columns(headers, inputs, normalisation, str(path)))


def stored_normalisation(
    path: Path, headers: Mapping[str, Header], inputs: Sequence[InputSpec]
) -> Normalisation | None:
    """The constants ``mean`` and ``std`` of a file; None without, and where the graph has such an input."""
    if not set(CONSTANTS) <= set(headers) or set(CONSTANTS) & {spec.name for spec in inputs}:
        return None
    found = read_arrays(path, CONSTANTS)
    return Normalisation.of(found["mean"], found["std"], f"'mean' and 'std' in {path}")
