"""Models and other files are written whole or not at all; module ``placing`` says what that means for several."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.errors import OptionError
from graphprune.mapped import array_of, is_external
from graphprune.placing import place_together, reason, settle

EXTERNAL_FROM_BYTES = 1_800_000_000
"""protobuf ends at 2 GiB: larger models keep their weights in a file beside them."""

INLINE_BYTES = 256
"""Tensors up to this size stay in the model file itself (onnx_ir's default threshold)."""


def save_model(
    model: ir.Model,
    path: Path,
    *,
    force: bool = False,
    finish: Callable[[onnx.ModelProto], None] | None = None,
    beside: Mapping[Path, Callable[[Path], bytes]] | None = None,
    gone: Collection[Path] = (),
) -> Path:
    """Write ``model``; weights go to ``PATH.data`` where it had external data or is too large for one file.

    ``finish`` may change the protobuf before it is written. ``beside``: more files in the same folder, each
    with what makes its content of the written model; all appear, or none. ``gone``: files beside an older model at
    ``path`` that go with it, as its weights do.

    Raises OptionError where a target exists (unless ``force``), holds weights that ``model`` still reads, or
    cannot be written.
    """
    data = data_path(path) if needs_data_file(model) else None
    others = dict(beside or {})
    targets = [path, *([] if data is None else [data]), *others]
    check_free(targets, force=force)
    gone = [*gone, *([] if data is not None else _older_data(path))]
    check_unread([*targets, *gone], data_files(model))

    def write(folder: Path) -> None:
        written = folder / path.name
        if data is not None:
            _load_small(model)
            ir.save(model, written, external_data=data.name)
            proto = onnx.load(written, load_external_data=False) if finish else None
        else:
            proto = to_proto(model)
        if proto is not None:
            if finish is not None:
                finish(proto)
            written.write_bytes(proto.SerializeToString())
        for target, content in others.items():
            (folder / target.name).write_bytes(content(written))

    _place(path, write, weights=data, others=others, gone=gone)
    return path


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The protobuf, without the shape records that onnx_ir adds for initializers (which have shapes)."""
    proto = ir.to_proto(model)
    stored = {t.name for t in proto.graph.initializer}
    others = [v for v in proto.graph.value_info if v.name not in stored]
    if len(others) < len(proto.graph.value_info):
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(others)
    return proto


def write_text(path: Path, text: str, *, force: bool = False) -> Path:
    """Write a text file. Raises OptionError as ``save_model`` does."""
    return write_bytes(path, text.encode(), force=force)


def write_bytes(
    path: Path,
    content: bytes,
    *,
    force: bool = False,
    beside: Mapping[Path, bytes] | None = None,
    gone: Collection[Path] = (),
) -> Path:
    """Write a file and others beside it, all or none. Raises OptionError as ``save_model`` does."""
    contents = {path: content, **(beside or {})}
    check_free(contents, force=force)

    def write(folder: Path) -> None:
        for target, data in contents.items():
            (folder / target.name).write_bytes(data)

    _place(path, write, others=list(beside or ()), gone=gone)
    return path


# -- may it be written? ---------------------------------------------------------------------------------


def check_place(path: Path) -> None:
    """Raises OptionError where no file can be: a folder, a device, a name too long, a folder that takes no files.

    What a killed process left half done in this folder is settled first.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise OptionError(f"{path}: the name is not valid text, so choose another") from None
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFREG
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror or error}") from error
    if stat.S_ISDIR(mode):
        raise OptionError(f"{path} is a folder: name a file")
    if not stat.S_ISREG(mode):
        raise OptionError(f"{path} is no ordinary file: name one that can be replaced")
    if not path.parent.is_dir():
        raise OptionError(f"{path.parent} is not a folder: create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OptionError(
            f"{path.parent} takes no new files: choose another folder, or change its permissions"
        )
    settle(path.parent)


def check_free(targets: Collection[Path], *, force: bool = False) -> None:
    """Raises OptionError where a target exists, unless ``force``, or cannot be written."""
    for target in targets:
        check_place(target)
        if os.path.lexists(target) and not force:
            raise OptionError(f"{target} exists already: use --force to replace it, or another name")


def check_unread(targets: Collection[Path], read: Collection[Path]) -> None:
    """Raises OptionError where a target is one of the files ``read`` that hold the weights of a model."""
    for target in targets:
        if os.path.exists(target) and any(path.exists() and path.samefile(target) for path in read):
            raise OptionError(f"{target} holds weights of the model that is read: choose another name")


# -- weights in files of their own --------------------------------------------------------------------------


def data_path(path: Path) -> Path:
    """``OUT.onnx`` -> ``OUT.onnx.data``, where large models keep their weights."""
    return Path(f"{path}.data")


def written_bytes(path: Path) -> int:
    """Of a model that ``save_model`` wrote, with its weights in ``PATH.data``."""
    data = data_path(path)
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def data_files(model: ir.Model) -> set[Path]:
    """The files that hold weights of ``model``."""
    return {Path(t.path) for t in _tensors(model) if isinstance(t, ir.ExternalTensor)}


def _older_data(path: Path) -> list[Path]:
    """The file with the weights of an older model at ``path``."""
    data = data_path(path)
    if not path.is_file() or not data.is_file():
        return []
    try:
        older = onnx.load(path, load_external_data=False)
    except Exception:  # noqa: BLE001 - whatever it is, it is no model that reads this file
        return []
    places = {e.value for t in older.graph.initializer for e in t.external_data if e.key == "location"}
    return [data] if data.name in places else []


def needs_data_file(model: ir.Model) -> bool:
    """Whether weights go to a file beside the model: some are in one already, or they are too large."""
    tensors = list(_tensors(model))
    return any(is_external(t) for t in tensors) or sum(t.nbytes for t in tensors) > EXTERNAL_FROM_BYTES


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Of initializers."""
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            yield value.const_value


def _load_small(model: ir.Model) -> None:
    """Hold small external tensors in memory: ir.save closes files that numpy may still look into."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= INLINE_BYTES:
            value.const_value = ir.Tensor(np.array(array_of(tensor)), dtype=tensor.dtype, name=tensor.name)


def _place(
    path: Path,
    write: Callable[[Path], None],
    *,
    weights: Path | None = None,
    others: Collection[Path] = (),
    gone: Collection[Path] = (),
) -> None:
    try:
        place_together(path, write, weights=weights, others=others, gone=gone)
    except OSError as error:
        raise OptionError(f"cannot write {path}: {reason(error)}") from error
