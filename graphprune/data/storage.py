"""numpy's files: what they hold without reading it, and the arrays themselves. Pickles are never loaded."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from graphprune.data.sentences import reason
from graphprune.errors import DataError

MOST_MEMORY = 0.5
"""Of the machine's, for the arrays of one file."""

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
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        header = _header(file)
                        _check_length(header, member.file_size - file.tell(), member.filename)
                        found[member.filename.removesuffix(".npy")] = header
        return found


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays; that of a .npy file stays on disk and is read where it is indexed.

    Raises DataError for a damaged file.
    """
    with _readable(path):
        if path.suffix == ".npy":
            return {ONLY: np.load(path, mmap_mode="r", allow_pickle=False)}
        wanted = list(names)
        with np.load(path, allow_pickle=False) as archive:
            _check_room(path, [n for n in wanted if n in archive.files])
            return {name: archive[name] for name in wanted}


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return Header(shape, dtype)


def _check_length(header: Header, size: int, name: str) -> None:
    """A header may claim any shape. Raises ValueError."""
    wanted = math.prod(header.shape) * header.dtype.itemsize
    if min(header.shape, default=0) < 0 or (size != wanted and not header.dtype.hasobject):
        raise ValueError(f"{name} has {size} bytes, and its shape {header.shape} needs {wanted}")


def _check_room(path: Path, names: Iterable[str]) -> None:
    """A few kilobytes can unpack to more than the machine has. Raises MemoryError."""
    with zipfile.ZipFile(path) as archive:
        size = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MOST_MEMORY:
        raise MemoryError


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: store it as a folder of smaller shards") from error
    except Exception as error:  # numpy, zipfile and what they call have no common error for a damaged file
        raise DataError(f"cannot read {path} ({reason(error)}): save it again with numpy") from error
