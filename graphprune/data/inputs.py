"""What the inputs of an ONNX model take from a user's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.data.samples import InputSpec
from graphprune.errors import DataError

if TYPE_CHECKING:
    import onnx_ir as ir


def input_specs(model: ir.Model) -> list[InputSpec]:
    """What the model's inputs take, before its graph is analysed. Raises DataError for one of unknown shape."""
    found = []
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        if value.shape is None:
            raise DataError(f"the shape of input {value.name!r} is not known: give the file shapes first")
        sizes = tuple(d if isinstance(d, int) and d > 0 else None for d in value.shape)
        dtype = "float32" if value.dtype is None else value.dtype.numpy().name
        found.append(InputSpec(value.name or "", sizes, dtype))
    return found
