"""Files that a command is to write: where they go, and whether they may, asked before any work."""

from __future__ import annotations

from pathlib import Path


def default_output(model: Path, ending: str) -> Path:
    """``model.onnx`` -> ``model`` with another ending (``.pruned.onnx``); ``package.module:name`` -> ``name``."""
    if ":" in model.name and not model.exists():
        return Path(model.name.rpartition(":")[2] + ending)
    return model.with_name(model.name.removesuffix(".onnx") + ending)


def check_output(written: Path) -> None:
    """Refuse, before any work, a place where no file can be. Raises OptionError."""
    from graphprune.errors import OptionError

    if written.is_dir():
        raise OptionError(f"{written} is a folder: name a file with -o")
    if not written.parent.is_dir():
        raise OptionError(f"{written.parent} is not a folder: create it first")


def check_free(*files: Path) -> None:
    """Refuse, before any work, to replace a file. Raises OptionError."""
    from graphprune.errors import OptionError

    for path in files:
        if path.exists():
            raise OptionError(f"{path} exists already: use --force to replace it, or -o for another name")


def check_json_target(target: str | None, *others: Path) -> None:
    """Refuse, before any work, a ``--json`` file that cannot be written or is one of ``others``.

    Raises OptionError.
    """
    from graphprune.errors import OptionError

    if target is None or target == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise OptionError(f"--json {target} is a folder: name a file")
    if not path.parent.is_dir():
        raise OptionError(f"--json {target}: {path.parent} is not a folder: create it first")
    if any(same_file(path, other) for other in others):
        raise OptionError(f"--json {target} would replace the model or its weights: name another file")


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths name one file, existing or not."""
    return first.resolve() == second.resolve() or (
        first.exists() and second.exists() and first.samefile(second)
    )
