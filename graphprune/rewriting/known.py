"""What is known about the values of a model that is being rewritten: sizes that hold for every input, and data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.folding import constant_array
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph, Value
from graphprune.mapped import array_of

_OTHER_BATCH, _OTHER_SIZE = 3, 2
"""A second size for a dynamic axis: of the batch, and times the first for the others."""


class Known:
    """A model as it is now. ``shapes``: sizes that the user gave for inputs with dynamic axes.

    The model is analysed for two sizes of every axis that is dynamic and that nobody gave (the batch always):
    a size that differs between the two, or that one of them cannot tell, is not known.
    """

    def __init__(self, model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._model, self._shapes = model, shapes

    @cached_property
    def graphs(self) -> tuple[Graph, ...]:
        """One analysis, or two where an axis is dynamic."""
        first = build_graph(self._model, self._shapes)
        other = {}
        for source in self._model.graph.inputs:
            value = first.values.get(source.name or "")
            if value is None or value.shape is None or source.shape is None or value.constant:
                continue
            sizes = list(value.shape)
            for axis, dim in enumerate(source.shape):
                dynamic = not isinstance(dim, int) or dim <= 0
                if dynamic and axis == 0:
                    sizes[0] = _OTHER_BATCH
                elif dynamic and value.name not in self._shapes and not (axis == 1 and _to_conv(value)):
                    sizes[axis] *= _OTHER_SIZE
            if tuple(sizes) != value.shape:
                other[value.name] = tuple(sizes)
        return (first,) if not other else (first, build_graph(self._model, {**self._shapes, **other}))

    def sizes(self, value: ir.Value) -> tuple[int | None, ...] | None:
        """The sizes of a tensor, None for one that depends on the input's; None where not even the rank is known."""
        found = [g.values.get(value.name or "") for g in self.graphs]
        shapes = [v.shape for v in found if v is not None and v.shape is not None]
        if len(shapes) < len(self.graphs) or len({len(s) for s in shapes}) != 1:
            return None
        return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))

    def dtype(self, value: ir.Value) -> str:
        """numpy's name of the element type, or "" where it is not known."""
        found = self.graphs[0].values.get(value.name or "")
        return "" if found is None else found.dtype

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """The data of a constant, whatever holds it; None for what depends on the input or its sizes."""
        if value is None:
            return None
        if value.const_value is not None:
            return _read(value)
        found = [g.values.get(value.name or "") for g in self.graphs]
        try:
            arrays = [constant_array(v) for v in found if v is not None and v.constant]
        except ValueError:
            return None
        same = len(arrays) == len(found) and all(np.array_equal(a, arrays[0]) for a in arrays)
        return np.asarray(arrays[0]) if same else None  # made of sizes, it may differ


def _to_conv(value: Value) -> bool:
    """Whether axis 1 holds channels, whose number the weights fix."""
    return any(node.op == "Conv" for node in value.consumers)


def _read(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    try:
        return array_of(value.const_value)
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(f"weight {value.name!r} cannot be read ({error}): copy the model again") from error
