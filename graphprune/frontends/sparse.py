"""Sparse initializers -> dense ones, because onnx_ir would drop them without a word."""

from __future__ import annotations

import math

import numpy as np
import onnx

from graphprune.errors import ModelError
from graphprune.frontends.tensors import graphs_of

ROOM = 1 << 28
TIMES = 256
"""A few bytes can claim any shape: all of them together may take ROOM bytes, or TIMES those of the model."""

_NO_NUMBERS = frozenset({onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING})


def densified(proto: onnx.ModelProto, what: str, notes: list[str]) -> onnx.ModelProto:
    """``proto`` itself, or a copy with a dense initializer in the place of every sparse one.

    Raises ModelError for a sparse tensor that contradicts itself.
    """
    if not any(graph.sparse_initializer for graph in graphs_of(proto)):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    names = []
    room = max(ROOM, TIMES * proto.ByteSize())
    for graph in graphs_of(copy):
        for sparse in graph.sparse_initializer:
            names.append(sparse.values.name)
            dense = _dense(sparse, what, room)
            room -= len(dense.raw_data)
            graph.initializer.append(dense)
        del graph.sparse_initializer[:]
    notes.append(f"{len(names)} sparse initializers were read as dense ones (the first is {names[0]!r})")
    return copy


def _dense(sparse: onnx.SparseTensorProto, what: str, room: int) -> onnx.TensorProto:
    """As a dense tensor of at most ``room`` bytes.

    Indices are row-major numbers ``[stored]`` or positions ``[stored, rank]``, ascending (onnx.proto).
    """
    name, shape = sparse.values.name, tuple(sparse.dims)

    def damaged(why: str) -> ModelError:
        return ModelError(f"{what}: sparse initializer {name!r} {why}: export the model again")

    if not name:
        raise damaged("has no name")
    if sparse.values.data_type in _NO_NUMBERS:
        raise damaged("holds no numbers")
    if onnx.TensorProto.EXTERNAL in (sparse.values.data_location, sparse.indices.data_location):
        raise damaged("keeps its data in another file, which graphprune cannot read")
    try:
        values = onnx.numpy_helper.to_array(sparse.values)
        indices = onnx.numpy_helper.to_array(sparse.indices)
    except Exception as error:  # onnx raises many types for data that does not fit its shape
        raise damaged("has data that does not fit its shape and type") from error
    if not shape or min(shape) <= 0 or math.prod(shape) * values.dtype.itemsize > room:
        raise damaged(f"claims the shape {shape}")
    if values.ndim != 1 or indices.shape not in {values.shape, (*values.shape, len(shape))}:
        raise damaged(f"has {values.shape} values and {indices.shape} indices")
    if indices.dtype.kind not in "iu":
        raise damaged("has indices that are no integers")
    bounds = np.array(shape) if indices.ndim == 2 else math.prod(shape)
    if (indices < 0).any() or (indices >= bounds).any():
        raise damaged(f"has indices outside its shape {shape}")
    flat = np.ravel_multi_index(tuple(indices.T), shape) if indices.ndim == 2 else indices
    if (np.diff(flat) <= 0).any():
        raise damaged("has indices that do not ascend")
    array = np.zeros(math.prod(shape), values.dtype)
    array[flat] = values
    return onnx.numpy_helper.from_array(array.reshape(shape), name)
