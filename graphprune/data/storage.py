"""numpy's files: what they hold without reading it, and the arrays themselves. Pickles are never loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from graphprune.data.sentences import reason
from graphprune.errors import DataError

ONLY = "array"
"""The name that the one array of a .npy file goes by."""


@dataclass(frozen=True)
class Header:
    """What a stored array is. shape: ``(samples, ...)``."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_headers(path: Path) -> dict[str, Header]:
    """Name -> header of every array in a .npz or .npy file. Raises DataError for a damaged file."""
    with _readable(path):
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {ONLY: _header(file)}
        found = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        found[member.removesuffix(".npy")] = _header(file)
        return found


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays; that of a .npy file stays on disk and is read where it is indexed.

    Raises DataError for a damaged file.
    """
    with _readable(path):
        if path.suffix == ".npy":
            return {ONLY: np.load(path, mmap_mode="r", allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return Header(shape, dtype)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: store it as a folder of smaller shards") from error
    except Exception as error:  # numpy, zipfile and what they call have no common error for a damaged file
        raise DataError(f"cannot read {path} ({reason(error)}): save it again with numpy") from error
