"""Files that a command is to write: where they go, and whether they may, asked before any work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def default_output(model: Path, ending: str) -> Path:
    """``model.onnx`` -> ``model`` with another ending (``.pruned.onnx``); ``package.module:name`` -> ``name``."""
    if ":" in model.name and not os.path.exists(model):
        return Path(model.name.rpartition(":")[2] + ending)
    return model.with_name(model.name.removesuffix(".onnx") + ending)


def check_outputs(*files: Path, force: bool) -> None:
    """Refuse, before any work, places where no file can be, and to replace one without ``force``.

    Raises OptionError.
    """
    from graphprune.writing import check_free

    check_free(files, force=force)


def check_unread(read: ir.Model, *files: Path) -> None:
    """Refuse to replace the files in which a model keeps its weights. Raises OptionError."""
    from graphprune.writing import check_unread, data_files

    check_unread(files, data_files(read))


def check_weights(read: ir.Model, written: Path, *reports: Path, force: bool) -> None:
    """Refuse, before any work, what the weights of ``read``, where they are in files of their own, make impossible.

    The model at ``written`` will have such a file, too. Raises OptionError.
    """
    from graphprune.writing import check_free, data_path, needs_data_file

    check_unread(read, written, data_path(written), *reports)
    if needs_data_file(read):
        check_free([data_path(written)], force=force)


def check_json_target(target: str | None, *others: Path, force: bool) -> None:
    """Refuse, before any work, a ``--json`` file that cannot be written, is in ``others``, or exists (no ``force``).

    Raises OptionError.
    """
    from graphprune.errors import OptionError
    from graphprune.writing import check_free

    if target is None or target == "-":
        return
    path = Path(target)
    if any(same_file(path, other) for other in others):
        raise OptionError(f"--json {target} would replace the model or its weights: name another file")
    try:
        check_free([path], force=force)
    except OptionError as error:
        raise OptionError(f"--json: {error}") from None


def named(*targets: str | Path | None) -> list[Path]:
    """The files among what ``--json`` and the like name: neither nothing nor standard output."""
    return [Path(target) for target in targets if target is not None and str(target) != "-"]


def check_html_target(target: Path | None, *others: Path, force: bool) -> None:
    """Refuse, before any work, an HTML file that cannot be written, is in ``others``, or exists (no ``force``).

    Raises OptionError.
    """
    from graphprune.errors import OptionError

    if target is None:
        return
    if any(same_file(target, other) for other in others):
        raise OptionError(f"{target} is another file of this command: choose another name for the report")
    check_outputs(target, force=force)


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths name one file, existing or not."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    return os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second)
