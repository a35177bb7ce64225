"""Files appear whole or not at all: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from graphprune.errors import OptionError

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
) -> Path:
    """Write ``model``; weights go to ``PATH.data`` where it had external data or is too large for one file.

    ``finish`` may change the protobuf before it is written. ``beside``: more files in the same folder, each
    with what makes its content of the written model; all appear, or none.

    Raises OptionError where a target exists (unless ``force``) or cannot be written.
    """
    external = _needs_external(model)
    others = dict(beside or {})
    targets = [path, *([Path(f"{path}.data")] if external else []), *others]
    _check_free(targets, force)

    def write(folder: Path) -> None:
        written = folder / path.name
        if external:
            _load_small(model)
            ir.save(model, written, external_data=f"{path.name}.data")
            proto = onnx.load(written, load_external_data=False) if finish else None
        else:
            proto = to_proto(model)
        if proto is not None:
            if finish is not None:
                finish(proto)
            written.write_bytes(proto.SerializeToString())
        for target, content in others.items():
            (folder / target.name).write_bytes(content(written))

    _write_all(targets, write)
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
    _check_free([path], force)

    def write(folder: Path) -> None:
        (folder / path.name).write_text(text, encoding="utf-8")

    _write_all([path], write)
    return path


def write_bytes(path: Path, data: bytes, *, force: bool = False) -> Path:
    """Write a binary file. Raises OptionError as ``save_model`` does."""
    _check_free([path], force)

    def write(folder: Path) -> None:
        (folder / path.name).write_bytes(data)

    _write_all([path], write)
    return path


def _needs_external(model: ir.Model) -> bool:
    tensors = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    return any(isinstance(t, ir.ExternalTensor) for t in tensors) or (
        sum(t.nbytes for t in tensors) > EXTERNAL_FROM_BYTES
    )


def _load_small(model: ir.Model) -> None:
    """Hold small external tensors in memory: ir.save closes files that numpy may still look into."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= INLINE_BYTES:
            value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)


def _check_free(targets: list[Path], force: bool) -> None:
    for target in targets:
        if target.is_dir():
            raise OptionError(f"{target} is a folder: name a file")
        if target.exists() and not force:
            raise OptionError(f"{target} exists already: use --force to replace it, or another name")
        if not target.parent.is_dir():
            raise OptionError(f"{target.parent} is not a folder: create it first")


def _write_all(targets: list[Path], write: Callable[[Path], None]) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=targets[0].parent, prefix=".graphprune-") as folder:
            write(Path(folder))
            for target in reversed(targets):  # the model last: what it points to is there already
                os.replace(Path(folder) / target.name, target)
    except OSError as error:
        raise OptionError(f"cannot write {targets[0]}: {error.strerror or error}") from error
