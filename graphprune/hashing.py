"""The hash of a model that came from memory, however large it is."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.mapped import array_of
from graphprune.writing import INLINE_BYTES, to_proto

ONE_MESSAGE_BYTES = 1_800_000_000
"""protobuf serialises no more than 2 GiB at once."""


def memory_sha256(model: ir.Model) -> str:
    """Of the serialised model. Beyond ONE_MESSAGE_BYTES weights are left out of it and follow one by one."""
    tensors = [v.const_value for v in model.graph.initializers.values()]
    if sum(t.nbytes for t in tensors if t is not None) <= ONE_MESSAGE_BYTES:
        return hashlib.sha256(to_proto(model).SerializeToString(deterministic=True)).hexdigest()
    bare, large = model.clone(), []
    for value in bare.graph.initializers.values():
        tensor: Any = value.const_value
        if tensor is not None and tensor.nbytes > INLINE_BYTES:
            large.append(tensor)
            value.const_value = ir.ExternalTensor(
                "weights", None, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=tensor.name
            )
    digest = hashlib.sha256(to_proto(bare).SerializeToString(deterministic=True))
    for tensor in large:
        digest.update(np.ascontiguousarray(array_of(tensor)).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
