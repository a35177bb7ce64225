"""Weights in other files: mapped while somebody looks at them, and no longer.

onnx_ir keeps a mapping (and an open file) for every tensor that was read once, so that one pass over a model
leaves all of it resident. What is read here goes with the array.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.slabs import slabs

COPIED_BYTES = 1 << 16
"""Smaller tensors are read: every mapping takes an open file, and models have thousands of biases."""


def array_of(tensor: Any) -> np.ndarray:
    """The data of a tensor (onnx_ir's TensorProtocol), read-only where it is mapped.

    Raises what reading a damaged or missing file raises: ValueError, TypeError, OSError.
    """
    own = _own(tensor)
    if own is None:
        return np.asarray(tensor.numpy())
    return np.array(own.numpy()) if own.nbytes <= COPIED_BYTES else np.asarray(own.numpy())


def copy_of(tensor: Any) -> np.ndarray:
    """As ``array_of``, to be written to. Of a mapped tensor only a part is resident besides the copy."""
    own = _own(tensor)
    array = np.asarray(tensor.numpy() if own is None else own.numpy())
    mapping = None if own is None else own.raw
    if mapping is None or array.ndim == 0 or not hasattr(mapping, "madvise"):
        return np.array(array)
    found = np.empty(array.shape, array.dtype)
    for part in slabs(array.shape):
        found[part] = array[part]
        mapping.madvise(mmap.MADV_DONTNEED)
    return found


def _own(tensor: Any) -> ir.ExternalTensor | None:
    """The same external tensor with a mapping of its own; None for any other."""
    if not isinstance(tensor, ir.ExternalTensor) or not tensor.valid():
        return None
    return ir.ExternalTensor(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name or "",
        base_dir=tensor.base_dir,
    )


def replacing(old: Any, array: np.ndarray, *, name: str | None = None) -> ir.Tensor:
    """A tensor of ``array`` (not copied) in the place of ``old``: its element type, name and doc string.

    A weight that was in another file goes to one again when the model is written.
    """
    new = ir.Tensor(array, dtype=old.dtype, name=old.name if name is None else name)
    new.doc_string = old.doc_string
    inherit(new, old)
    return new


def inherit(new: Any, old: Any) -> None:
    """Note in ``new``, which replaces ``old``, whether that lies in another file."""
    new.meta[_EXTERNAL] = is_external(old)


def is_external(tensor: Any) -> bool:
    """Whether a tensor lies in another file, or replaces one that does."""
    return isinstance(tensor, ir.ExternalTensor) or bool(tensor.meta.get(_EXTERNAL, False))


_EXTERNAL = "graphprune.external"
