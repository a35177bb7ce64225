"""Checkpoints: a whole training on disk, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from graphprune.errors import OptionError, TrainingError
from graphprune.placing import place_together, reason

VERSION = 2


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain data) to a temporary file, then rename it.

    Raises TrainingError where the disk does not take it; an earlier checkpoint is left as it was.
    """

    def write(folder: Path) -> None:
        with (folder / path.name).open("wb") as file:
            torch.save({"version": VERSION, **state}, file)

    try:
        place_together(path, write)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        kept = f"; the one before it is still there, so --resume goes on from {path}" if path.exists() else ""
        raise TrainingError(f"cannot write the checkpoint {path}: {reason(error)}{kept}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote. Raises OptionError, also for what is not a checkpoint."""
    if not path.exists():
        raise OptionError(f"{path}: no such checkpoint to resume from; run without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise OptionError(
            f"{path} is not a readable checkpoint: remove it, and run without --resume"
        ) from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise OptionError(f"{path} was not written by this version of graphprune: run without --resume")
    return state
