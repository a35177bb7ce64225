"""Rows as JSON lines, one file a network, and claims, so that several processes share the work."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.paper.keys import Key
from tests.benchmarks.trained import rows as read

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
CACHE = HERE / ".cache"
"""Data as .npz, claims and checkpoints: made again where they are missing."""


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a row, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


class Rows:
    """Every row there is, by its key."""

    def __init__(self, folder: Path = RESULTS) -> None:
        self.folder = folder
        self.by_key: dict[Key, dict[str, Any]] = {}
        for path in sorted(folder.glob("rows_*.jsonl")):
            for row in read(path):
                self.by_key[Key.of(row)] = row

    def add(self, key: Key, row: dict[str, Any]) -> None:
        """Keep a row."""
        append(self.folder / f"rows_{key.network}.jsonl", row)
        self.by_key[key] = row


@contextmanager
def claim(what: str) -> Iterator[bool]:
    """Whether this process may do ``what``; another one that lives and has it keeps it."""
    folder = CACHE / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(what.encode()).hexdigest()[:16]
    mine = _take(path)
    try:
        yield mine
    finally:
        if mine:
            path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    mine.write_text(str(os.getpid()))
    try:
        path.hardlink_to(mine)  # all or nothing, and never an empty file
        return True
    except FileExistsError:
        if Path(f"/proc/{path.read_text()}").exists():
            return False
        path.unlink(missing_ok=True)  # of a process that was killed
        return _take(path)
    finally:
        mine.unlink(missing_ok=True)
