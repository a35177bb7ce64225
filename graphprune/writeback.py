"""Trained values -> the original ONNX graph, by the names of its stored tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.adding import add_initializer, stored_value
from graphprune.errors import ModelError
from graphprune.mapped import array_of, inherit, replacing
from graphprune.running import top_level_values


def with_tensors(model: ir.Model, arrays: Mapping[str, np.ndarray]) -> ir.Model:
    """A copy of ``model`` whose stored tensors have new numbers, in their own element type.

    ``arrays``: name of an initializer, or of the output of a Constant (or any other constant) node -> data
    of the same shape. Tensors that are not named are shared with ``model``.

    Raises ModelError for a name that the model does not have, or a shape that differs.
    """
    return _with_made(model, {name: partial(np.array, array) for name, array in arrays.items()})


def with_masked(model: ir.Model, masks: Mapping[str, np.ndarray]) -> ir.Model:
    """As ``with_tensors``: zeros where ``masks`` (name -> bool of the tensor's shape) are False.

    Initializers are made whenever somebody reads them, until ``hold`` makes them for good.
    """
    tensors = stored_tensors(model, masks)
    copy = _with_made(
        model,
        {n: partial(_masked, tensors[n], m) for n, m in masks.items() if n not in model.graph.initializers},
    )
    for name, mask in masks.items():
        if name not in copy.graph.initializers:
            continue
        old: Any = tensors[name]
        lazy = ir.LazyTensor(
            partial(_masked_tensor, old, mask), old.dtype, ir.Shape(old.shape), name=old.name
        )
        inherit(lazy, old)
        copy.graph.initializers[name].const_value = lazy
    return copy


def hold(model: ir.Model) -> None:
    """Make the initializers that ``with_masked`` left to be made, one by one, in place."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.LazyTensor):
            value.const_value = value.const_value.raw()


def _masked_tensor(old: ir.TensorProtocol, mask: np.ndarray) -> ir.Tensor:
    return replacing(old, _masked(old, mask))


def _masked(tensor: ir.TensorProtocol, mask: np.ndarray) -> np.ndarray:
    array = array_of(tensor)
    return np.where(mask, array, array.dtype.type(0))


def _with_made(model: ir.Model, makers: Mapping[str, Callable[[], np.ndarray]]) -> ir.Model:
    """A copy of ``model`` with new arrays, which become its own, in the place of stored tensors."""
    copy = model.clone()
    values = top_level_values(copy.graph)
    for name, make in makers.items():
        value, array = values.get(name), make()
        if value is None:
            raise ModelError(f"the model has no tensor {name!r} to write other values to")
        node = value.producer()
        if node is None:
            assert value.const_value is not None
            value.const_value = _tensor(name, array, value.const_value)
        elif node.op_type == "Constant" and "value" in node.attributes:
            old = node.attributes["value"].as_tensor()
            node.attributes["value"] = ir.AttrTensor("value", _tensor(name, array, old))
        else:
            _store(copy, value, node, array)
    return copy


def stored_arrays(model: ir.Model, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Data of stored tensors by name (initializers and Constant nodes). Raises ModelError for others."""
    return {name: array_of(tensor) for name, tensor in stored_tensors(model, names).items()}


def stored_tensors(model: ir.Model, names: Iterable[str]) -> dict[str, ir.TensorProtocol]:
    """As ``stored_arrays``, before their data are read."""
    values = top_level_values(model.graph)
    found: dict[str, ir.TensorProtocol] = {}
    for name in names:
        value = values.get(name)
        node = None if value is None else value.producer()
        tensor = None if value is None else value.const_value
        if node is not None and "value" in node.attributes:
            tensor = node.attributes["value"].as_tensor()
        if tensor is None:
            raise ModelError(f"the model stores no tensor {name!r}")
        found[name] = tensor
    return found


def _tensor(name: str, array: np.ndarray, old: ir.TensorProtocol) -> ir.Tensor:
    if tuple(old.shape) != array.shape:
        raise ModelError(f"{name!r} has shape {tuple(old.shape)}, its new values have {array.shape}")
    data = array.astype(old.dtype.numpy(), copy=False)
    return replacing(old, data)


def _store(model: ir.Model, value: ir.Value, node: ir.Node, array: np.ndarray) -> None:
    """Put an initializer in the place of a node that makes a constant (ConstantOfShape and the like)."""
    dtype = value.dtype or ir.DataType.from_numpy(array.dtype)
    name = value.name
    assert name is not None
    value.name = f"{name}/untrained"
    stored = stored_value(name, array.astype(dtype.numpy()), dtype)
    value.replace_all_uses_with(stored, replace_graph_outputs=True)
    add_initializer(model, stored)
    if len(node.outputs) == 1:
        model.graph.remove(node, safe=True)
