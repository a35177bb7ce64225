"""Checkpoints: a whole training on disk, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from graphprune.errors import OptionError, TrainingError

VERSION = 1


def checkpoint_path(output: Path) -> Path:
    """``OUT.onnx`` -> ``OUT.checkpoint``."""
    return output.with_suffix(".checkpoint") if output.suffix == ".onnx" else Path(f"{output}.checkpoint")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain data) to a temporary file, then rename it.

    Raises TrainingError where the disk does not take it; an earlier checkpoint is left as it was.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            torch.save({"version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        kept = "; the checkpoint before it is still there" if path.exists() else ""
        raise TrainingError(f"cannot write the checkpoint {path}: {reason}{kept}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
