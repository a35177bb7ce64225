"""The table of file formats."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from graphprune.errors import OptionError
from graphprune.lookup import lookup
from graphprune.packed import Packed

Finish = Callable[[onnx.ModelProto], None]
"""The last touch on the protobuf, for what onnx_ir cannot hold."""

Store = Callable[[ir.Model, Mapping[str, Packed], list[str]], Finish | None]
"""``store(model, weights, notes)`` changes ``model`` (a copy of its own) so that it holds the patterned
weights in this format, and appends sentences for the user."""

MOVABLE = frozenset(
    ir.DataType[name]
    for name in (
        "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT16", "UINT16",
        "INT32", "UINT32", "INT64", "UINT64",
    )
)  # fmt: skip
"""Element types that onnxruntime gathers, transposes and makes dense; weights of others stay as they are."""


def stored_tensor(value: ir.Value) -> ir.TensorProtocol:
    """The tensor of an initializer or of a Constant node's output."""
    node = value.producer()
    tensor = value.const_value if node is None else node.attributes["value"].as_tensor()
    assert tensor is not None
    return tensor


@dataclass(frozen=True)
class FileFormat:
    """A named way to store patterned weights in an ONNX file."""

    name: str
    store: Store
    summary: str


_FORMATS: dict[str, FileFormat] = {}


def file_format(name: str) -> Callable[[Store], Store]:
    """Register a format. Raises ValueError when the name is taken."""

    def register(store: Store) -> Store:
        if name in _FORMATS:
            raise ValueError(f"there is a format {name!r} already")
        summary = (inspect.getdoc(store) or "").split("\n")[0]
        _FORMATS[name] = FileFormat(name, store, summary)
        return store

    return register


def find_format(name: str) -> FileFormat:
    """Raises OptionError, with the nearest name, for an unknown one."""
    return lookup(_FORMATS, name, "format")


def all_formats() -> dict[str, FileFormat]:
    """Every format by name, the most widely read one first."""
    return dict(_FORMATS)


def check_format(name: str, structure: str) -> None:
    """Raises OptionError for an unknown format, or one that ``structure`` does not take."""
    find_format(name)
    if structure in ("channel", "branch") and name != "dense-zeros":
        what = "channels" if structure == "channel" else "branches"
        raise OptionError(f"--format {name} goes with --structure block or nm: whole {what} are removed")
