"""SparseTensorProto in the place of dense initializers.

The message is in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); onnxruntime makes
dense tensors of it when it loads the file. onnx_ir has no room for it, so the protobuf is changed last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.errors import OptionError
from graphprune.formats.registry import MOVABLE, Finish, file_format, stored_tensor
from graphprune.packed import Packed
from graphprune.running import top_level_values
from graphprune.writing import EXTERNAL_FROM_BYTES

FIRST_IR_VERSION = 6
"""The first that has sparse initializers."""


@file_format("sparse-initializer")
def store(model: ir.Model, weights: Mapping[str, Packed], notes: list[str]) -> Finish:
    """Non-zeros with their positions (SparseTensorProto); only onnxruntime reads it, smaller where few are left.

    Weights that are graph outputs, or of other than the common types, stay dense. Raises OptionError where
    one file cannot hold it.
    """
    values = top_level_values(model.graph)
    sparse = [
        sparse_tensor(name, packed.dense())
        for name, packed in weights.items()
        if not values[name].is_graph_output() and stored_tensor(values[name]).dtype in MOVABLE
    ]
    size = sum(tensor.ByteSize() for tensor in sparse)
    if size > EXTERNAL_FROM_BYTES:
        raise OptionError(
            f"the sparse weights take {size / 1e9:.1f} GB, and one file holds 2: choose --format compact"
        )
    _warn_of_size(sparse, weights, size, notes)
    if model.ir_version < FIRST_IR_VERSION:
        if model.ir_version < 4:  # initializers had to be inputs; now that would make them replaceable
            model.graph.inputs[:] = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
        model.ir_version = FIRST_IR_VERSION
    for tensor in sparse:
        _take_out(model.graph, values[tensor.values.name])

    def finish(proto: onnx.ModelProto) -> None:
        proto.graph.sparse_initializer.extend(sparse)

    return finish


def sparse_tensor(name: str, array: np.ndarray) -> onnx.SparseTensorProto:
    """The non-zeros of ``array`` with their row-major numbers, ascending.

    The numbers go to ``int64_data``, which protobuf packs into as few bytes as each needs.
    """
    flat = array.reshape(-1)
    where = np.flatnonzero(flat != 0)
    values = onnx.numpy_helper.from_array(flat[where], name)
    indices = onnx.TensorProto(data_type=onnx.TensorProto.INT64, dims=[where.size], int64_data=where)
    return onnx.SparseTensorProto(values=values, indices=indices, dims=array.shape)


def _warn_of_size(
    sparse: list[onnx.SparseTensorProto], weights: Mapping[str, Packed], size: int, notes: list[str]
) -> None:
    names = [tensor.values.name for tensor in sparse]
    elements = sum(math.prod(weights[n].shape) for n in names)
    dense = sum(math.prod(weights[n].shape) * weights[n].dtype.itemsize for n in names)
    stored = sum(tensor.values.dims[0] for tensor in sparse)
    if elements and size >= dense:
        notes.append(
            f"sparse initializers take {size / 1e6:.2f} MB where dense tensors take {dense / 1e6:.2f} MB, because "
            f"only {1 - stored / elements:.1%} of the patterned weights are zero: --format compact or dense-zeros "
            "is smaller"
        )


def _take_out(graph: ir.Graph, value: ir.Value) -> None:
    """Leave only the name to its readers: the tensor comes back as a sparse one."""
    assert value.name is not None
    node = value.producer()
    if node is None:
        del graph.initializers[value.name]
        value.const_value = None
        return
    bare = ir.Value(name=value.name, shape=value.shape, type=value.type)
    value.name = None
    value.replace_all_uses_with(bare)
    graph.remove(node, safe=True)
