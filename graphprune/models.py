"""A loaded model: from a path, a protobuf, onnx_ir or onnx-graphsurgeon, and back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir

from graphprune.frontends.loading import load_model
from graphprune.writing import save_model, to_proto

if TYPE_CHECKING:
    import onnx_graphsurgeon


@dataclass(eq=False)
class Model:
    """A loaded model. Convert back with ``to_onnx``, ``to_ir`` or ``to_graphsurgeon``; write with ``save``."""

    ir: onnx_ir.Model
    name: str = "model"
    path: Path | None = None
    notes: list[str] = field(default_factory=list)

    def to_ir(self) -> onnx_ir.Model:
        """The onnx_ir model itself (not a copy)."""
        return self.ir

    def to_onnx(self) -> onnx.ModelProto:
        """As a protobuf."""
        return to_proto(self.ir)

    def to_graphsurgeon(self) -> onnx_graphsurgeon.Graph:
        """As an onnx_graphsurgeon Graph (which drops metadata_props)."""
        import onnx_graphsurgeon

        return onnx_graphsurgeon.import_onnx(self.to_onnx())

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the model, whole or not at all. Raises OptionError where ``path`` exists, unless ``force``."""
        return save_model(self.ir, Path(path), force=force)

    def sha256(self) -> str:
        """Of the file's bytes, or of the serialised model where it came from memory."""
        if self.path is None:
            return hashlib.sha256(self.to_onnx().SerializeToString(deterministic=True)).hexdigest()
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


def load(source: Any) -> Model:
    """Load a path, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or an ``onnx_graphsurgeon.Graph``.

    Raises ModelError for what is not a usable ONNX model.
    """
    if isinstance(source, Model):
        return source
    model, notes = load_model(source)
    if isinstance(source, str | os.PathLike):
        return Model(model, str(source), Path(source), notes)
    return Model(model, model.graph.name or "model", None, notes)


def sizes_by_name(given: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
    """``input_shapes`` as a caller gives them (input name -> sizes) as plain numbers."""
    return {name: tuple(int(s) for s in sizes) for name, sizes in (given or {}).items()}
