"""``OUT.blocks.npz``: the patterned weights of a file for toolchains, readable with numpy alone.

The index (JSON text in the array ``index``) follows the schema ``blocks``; the README describes each field.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - registers bfloat16 and the 8-bit floats with numpy
import numpy as np

from graphprune.errors import PlanError
from graphprune.notation import LARGEST_GROUP
from graphprune.packed import Packed, PackedBlocks, PackedRows
from graphprune.patterns import grid_of
from graphprune.plan import beside
from graphprune.schemas import schema

KIND = "graphprune.blocks"
VERSION = 1


def blocks_path(output: Path) -> Path:
    """``OUT.onnx`` -> ``OUT.blocks.npz``."""
    return beside(output, ".blocks.npz")


def blocks_schema() -> dict[str, Any]:
    """The JSON schema of the index."""
    return schema("blocks")


# -- writing ------------------------------------------------------------------------------------------


def sidecar_bytes(weights: Mapping[str, Packed], structure: str, model: Path) -> bytes:
    """The content of the sidecar of the written file ``model``; the same bytes for the same model."""
    arrays: dict[str, np.ndarray] = {}
    entries = []
    for number, packed in enumerate(weights.values()):
        entry, parts = _block_entry(packed) if isinstance(packed, PackedBlocks) else _row_entry(packed)
        common = {
            "number": number,
            "name": packed.name,
            "dtype": str(packed.dtype),
            "stored_as": str(_storage(packed.dtype)),
            "shape": list(packed.shape),
        }
        entries.append(common | entry)
        arrays.update({f"{number}/{part}": array for part, array in parts.items()})
    index = {
        "kind": KIND,
        "version": VERSION,
        "structure": structure,
        "model": {"file": model.name, "sha256": _sha256(model)},
        "weights": entries,
    }
    buffer = io.BytesIO()
    arrays["index"] = np.array(json.dumps(index))
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _block_entry(packed: PackedBlocks) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    entry = {
        "layout": "block",
        "block": list(packed.block),
        "grid": list(packed.bitmap.shape),
        "kept": len(packed.data),
    }
    return entry, {
        "bitmap": packed.bitmap.astype(np.uint8),
        "data": packed.data.view(_storage(packed.dtype)),
        "indptr": packed.indptr,
        "indices": packed.indices,
    }


def _row_entry(packed: PackedRows) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    entry = {"layout": "nm", "axis": packed.axis, "keep": packed.keep, "of": packed.of}
    return entry, {"values": packed.values.view(_storage(packed.dtype)), "positions": packed.positions}


def _storage(dtype: np.dtype) -> np.dtype:
    """Half precision and types that numpy lacks are stored as the unsigned integers with the same bits."""
    if dtype.kind in "iu" or dtype in (np.float32, np.float64):
        return dtype
    return np.dtype(f"uint{8 * dtype.itemsize}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- reading ------------------------------------------------------------------------------------------


def load_blocks(path: str | os.PathLike[str]) -> dict[str, Packed]:
    """Read a sidecar: tensor name -> ``PackedBlocks`` or ``PackedRows``, each with ``dense()``.

    ``path`` names the sidecar, or the ``.onnx`` file that it lies beside, which then must be the one that it was
    written with. Raises PlanError for a file that is missing, damaged, of another model, or no sidecar.
    """
    model = Path(path)
    file = blocks_path(model) if model.suffix == ".onnx" else model
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise PlanError(
            f"{file}: no such sidecar; prune writes it beside files with blocks or N:M patterns"
        ) from None
    except Exception as error:  # numpy and zipfile raise many types for damaged archives
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise PlanError(f"{file} is not a readable sidecar ({line}): write it again") from error
    try:
        index = _index(arrays)
        if file != model and model.exists() and index["model"]["sha256"] != _sha256(model):
            raise _Damage(f"{model.name} is not the file that it was written with")
        return _weights(index, arrays)
    except _Damage as damage:
        raise PlanError(f"{file} is not a usable sidecar: {damage}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PlanError(f"{file} is not a graphprune sidecar: its index is malformed") from error


class _Damage(Exception):
    """Why the content of a sidecar cannot be right."""


def _index(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if "index" not in arrays:
        raise _Damage("it has no index")
    index: dict[str, Any] = json.loads(str(arrays["index"]))
    if index.get("kind") != KIND:
        raise _Damage("it is of another kind")
    if index.get("version") != VERSION:
        raise _Damage(f"it has version {index.get('version')!r}, and this graphprune reads {VERSION}")
    return index


def _weights(index: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Packed]:
    found: dict[str, Packed] = {}
    for entry in index["weights"]:
        reader = _READERS.get(entry["layout"])
        if reader is None:
            raise _Damage(f"weight {entry['name']!r} has the unknown layout {entry['layout']!r}")
        found[str(entry["name"])] = reader(_Entry(entry, arrays))
    return found


class _Entry:
    """One weight of the index with its arrays."""

    def __init__(self, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.entry, self.arrays = entry, arrays
        self.name = str(entry["name"])
        self.shape = self.sizes("shape")

    def sizes(self, key: str) -> tuple[int, ...]:
        found = tuple(int(n) for n in self.entry[key])
        self.check(bool(found) and min(found) > 0, f"{key} {found}")
        return found

    def check(self, right: bool, what: str) -> None:
        if not right:
            raise _Damage(f"weight {self.name!r} has a wrong {what}")

    def array(self, part: str, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.ndarray:
        array = self.arrays.get(f"{self.entry['number']}/{part}")
        self.check(array is not None and array.dtype == dtype and array.shape == shape, part)
        assert array is not None
        return array

    def numbers(self, part: str, shape: tuple[int, ...]) -> np.ndarray:
        """The weight's own numbers, in their own type."""
        dtype = np.dtype(self.entry["dtype"])
        self.check(self.entry["stored_as"] == str(_storage(dtype)), "stored_as")
        return self.array(part, _storage(dtype), shape).view(dtype)


def _read_blocks(e: _Entry) -> PackedBlocks:
    block = e.sizes("block")
    e.check(len(block) == len(e.shape), "block")
    grid = grid_of(e.shape, block)
    e.check(e.sizes("grid") == grid, "grid")
    bitmap = e.array("bitmap", np.uint8, grid)
    e.check(bool((bitmap <= 1).all()), "bitmap")
    kept = bitmap.astype(bool)
    rows = kept.reshape(grid[0], -1)
    count = int(kept.sum())
    e.check(e.entry["kept"] == count, "kept")
    indptr = e.array("indptr", np.int32, (grid[0] + 1,))
    indices = e.array("indices", np.int32, (count,))
    e.check(bool((np.diff(indptr) == rows.sum(axis=1)).all()) and int(indptr[0]) == 0, "indptr")
    e.check(bool((indices == np.nonzero(rows)[1]).all()), "indices")
    return PackedBlocks(e.name, e.shape, block, kept, e.numbers("data", (count, *block)), indptr, indices)


def _read_rows(e: _Entry) -> PackedRows:
    axis, keep, of = (int(e.entry[key]) for key in ("axis", "keep", "of"))
    e.check(0 <= axis < len(e.shape), "axis")
    e.check(0 < keep <= of <= LARGEST_GROUP, "keep")
    others = tuple(n for a, n in enumerate(e.shape) if a != axis)
    shape = (*others, math.ceil(e.shape[axis] / of), keep)
    positions = e.array("positions", np.uint8, shape)
    ascending = (np.diff(positions.astype(np.int64), axis=-1) > 0).all()
    e.check(bool(ascending and (positions < of).all()), "positions")
    return PackedRows(e.name, e.shape, axis, keep, of, e.numbers("values", shape), positions)


_READERS: dict[str, Callable[[_Entry], Packed]] = {"block": _read_blocks, "nm": _read_rows}
