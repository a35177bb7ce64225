"""A loaded model: from a path, a protobuf, onnx_ir or onnx-graphsurgeon, and back."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir

from graphprune.errors import OptionError
from graphprune.frontends.external import Stretch, chunks, external_data, hold_inner
from graphprune.frontends.loading import load_model
from graphprune.hashing import memory_sha256
from graphprune.writing import data_files, save_model, to_proto

if TYPE_CHECKING:
    import onnx_graphsurgeon

    from graphprune.frontends.torch.source import TorchSource


@dataclass(eq=False)
class Model:
    """A loaded model. Convert back with ``to_onnx``, ``to_ir`` or ``to_graphsurgeon``; write with ``save``."""

    ir: onnx_ir.Model
    name: str = "model"
    path: Path | None = None
    notes: list[str] = field(default_factory=list)
    traced: TorchSource | None = None
    """Of an nn.Module: its trace, and the way back."""
    external: list[Stretch] = field(default_factory=list)
    """What it takes from files beside its own."""

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

    def sizes(self, given: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
        """``input_shapes`` as a caller gives them; those of a traced module are known: one sample of its example."""
        known = {} if self.traced is None else self.traced.sizes()
        return known | sizes_by_name(given)

    @property
    def stored_bytes(self) -> int | None:
        """Of its file and of the files that hold its weights; None for a model from memory."""
        if self.path is None:
            return None
        files = {os.path.realpath(f) for f in (self.path, *data_files(self.ir))}
        return sum(os.path.getsize(f) for f in files)

    def sha256(self) -> str:
        """Of the file's bytes, or of the serialised model where it came from memory.

        The bytes that it takes from external data follow those of the file: by name of the data file, in order,
        each byte once. Raises ModelError where such a file cannot be read any more.
        """
        if self.path is None:
            return memory_sha256(self.ir)
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        for chunk in chunks(self.external):
            digest.update(chunk)
        return digest.hexdigest()


def load(source: Any, example_inputs: Any = None) -> Model:
    """Load a path, an ``onnx.ModelProto``, an ``onnx_ir.Model``, an ``onnx_graphsurgeon.Graph`` or an ``nn.Module``.

    ``example_inputs``: of an nn.Module, what its forward takes: a tensor, or a tuple.

    Raises ModelError for what is not a usable ONNX model, ConversionError for a module that cannot be traced.
    """
    if isinstance(source, Model):
        return source
    torch = sys.modules.get("torch")  # nobody has a module without having imported it
    if torch is not None and isinstance(source, torch.nn.Module):
        from graphprune.frontends.torch.source import trace_source

        return of_module(trace_source(source, example_inputs))
    if example_inputs is not None:
        raise OptionError("example_inputs go with a PyTorch module; an ONNX model takes input_shapes")
    model, notes = load_model(source)
    if isinstance(source, str | os.PathLike):
        external = external_data(model)
        hold_inner(model)
        return Model(model, str(source), Path(source), notes, external=external)
    return Model(model, model.graph.name or "model", None, notes)


def of_module(traced: TorchSource) -> Model:
    """A traced module as a model."""
    return Model(traced.converted.model, type(traced.original).__name__, None, [], traced)


def sizes_by_name(given: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
    """``input_shapes`` as a caller gives them (input name -> sizes) as plain numbers."""
    return {name: tuple(int(s) for s in sizes) for name, sizes in (given or {}).items()}
