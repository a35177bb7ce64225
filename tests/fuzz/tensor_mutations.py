"""Mutations of stored tensors and of the names that values have."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.mutations import array_of, chance, mutation, names, near, pick, put, stored_tensors

_FLOAT = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_TYPES = ("float16", "float64", "int8", "uint8", "int32", "int64", "bool", "float32")
_ODD = ("a b", "a/b:0", "näme", "名前", "x[0]*?", "new\nline", "'\"", "\U0001f600", "..", " ")


def _floats(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [t for t in stored_tensors(model) if t.data_type in _FLOAT and 0 < np.prod(t.dims) < 1e7]


@mutation
def change_stored_number(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A size, an index, an axis, an amount of padding."""
    found = [t for t in stored_tensors(model) if t.data_type in (TensorProto.INT64, TensorProto.INT32)]
    found = [t for t in found if 0 < np.prod(t.dims) <= 64]
    if not found:
        return False
    tensor = pick(rng, found)
    array = array_of(tensor)
    if array is None or not array.size:
        return False
    at = int(rng.integers(array.size))
    wanted = near(rng, int(array.reshape(-1)[at]))
    limits = np.iinfo(array.dtype)
    array.reshape(-1)[at] = min(max(wanted, limits.min), limits.max)
    put(tensor, array)
    return True


@mutation
def declare_other_sizes(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """The sizes of a stored tensor contradict its data."""
    found = [t for t in stored_tensors(model) if t.dims]
    if not found:
        return False
    tensor = pick(rng, found)
    if chance(rng, 0.3):
        tensor.dims.append(pick(rng, [1, 2, 0]))
    else:
        at = int(rng.integers(len(tensor.dims)))
        tensor.dims[at] = near(rng, tensor.dims[at])
    return True


@mutation
def other_sizes(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A weight gets one position more or fewer along an axis, or two axes change places, data included."""
    found = [t for t in _floats(model) if t.dims]
    if not found:
        return False
    tensor = pick(rng, found)
    array = array_of(tensor)
    if array is None:
        return False
    axis = int(rng.integers(array.ndim))
    how = pick(rng, ["more", "less", "turned", "one", "none", "wider"])
    if how == "turned":
        array = np.swapaxes(array, axis, int(rng.integers(array.ndim)))
    elif how == "wider":
        array = np.expand_dims(array, axis)
    else:
        size = array.shape[axis]
        index = {"more": [*range(size), 0], "less": range(size - 1), "one": [0], "none": []}[how]
        array = np.take(array, np.array(list(index), np.int64), axis=axis)
    put(tensor, array)
    return True


@mutation
def cast_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A weight of another element type, data included."""
    found = _floats(model)
    if not found:
        return False
    tensor = pick(rng, found)
    array = array_of(tensor)
    if array is None:
        return False
    with np.errstate(all="ignore"):
        put(tensor, array.astype(pick(rng, _TYPES)))
    return True


@mutation
def declare_other_type(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """The element type contradicts the data."""
    found = stored_tensors(model)
    if not found:
        return False
    pick(rng, found).data_type = int(rng.integers(0, 26))
    return True


@mutation
def fill_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Not a number, infinite, zero, huge or tiny: one entry or all."""
    found = _floats(model)
    if not found:
        return False
    tensor = pick(rng, found)
    array = array_of(tensor)
    if array is None or not array.size or array.dtype.kind != "f":
        return False
    value = pick(rng, [np.nan, np.inf, -np.inf, 0.0, np.finfo(array.dtype).max, 1e-40])
    if chance(rng, 0.5):
        array[...] = value
    else:
        array.reshape(-1)[int(rng.integers(array.size))] = value
    put(tensor, array)
    return True


@mutation
def drop_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    stored = model.graph.initializer
    if not stored:
        return False
    del stored[int(rng.integers(len(stored)))]
    return True


@mutation
def duplicate_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Two initializers of one name, the same or not."""
    stored = model.graph.initializer
    if not stored:
        return False
    copy = onnx.TensorProto()
    copy.CopyFrom(pick(rng, stored))
    if chance(rng, 0.5):
        copy.CopyFrom(pick(rng, stored))
        copy.name = pick(rng, stored).name
    stored.append(copy)
    return True


@mutation
def share_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Two nodes read one weight, which each had its own: the network stays valid."""
    stored = list(model.graph.initializer)
    pairs = [(a.name, b.name) for a in stored for b in stored if a is not b and _alike(a, b)]
    if not pairs:
        return False
    old, new = pick(rng, pairs)
    for node in model.graph.node:
        node.input[:] = [new if i == old else i for i in node.input]
    return True


def _alike(a: onnx.TensorProto, b: onnx.TensorProto) -> bool:
    return a.data_type == b.data_type and list(a.dims) == list(b.dims) and len(a.dims) > 0


@mutation
def tensor_to_constant(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """An initializer becomes a Constant node: the network stays valid."""
    stored = model.graph.initializer
    if not stored:
        return False
    at = int(rng.integers(len(stored)))
    node = helper.make_node("Constant", [], [stored[at].name], value=stored[at])
    del stored[at]
    model.graph.node.insert(0, node)
    return True


@mutation
def tensor_to_input(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """An initializer becomes an input; sometimes it stays an initializer as well, which gives its default."""
    stored = model.graph.initializer
    if not stored:
        return False
    at = int(rng.integers(len(stored)))
    tensor = stored[at]
    info = helper.make_tensor_value_info(tensor.name, tensor.data_type or 1, list(tensor.dims))
    model.graph.input.append(info)
    if chance(rng, 0.5):
        del stored[at]
    return True


@mutation
def tensor_to_output(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """An initializer is an output of the model too."""
    stored = model.graph.initializer
    if not stored:
        return False
    tensor = pick(rng, stored)
    info = helper.make_tensor_value_info(tensor.name, tensor.data_type or 1, list(tensor.dims))
    model.graph.output.append(info)
    return True


@mutation
def computed_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A weight that a node computes from a stored one: the network stays valid."""
    stored = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and t.dims]
    if not stored:
        return False
    tensor = pick(rng, stored)
    array = array_of(tensor)
    if array is None or tensor.name in {o for n in model.graph.node for o in n.output}:
        return False
    name, inner = tensor.name, f"{tensor.name}_stored"
    how = pick(rng, ["Identity", "Transpose", "Neg", "Mul"])
    if how == "Transpose":
        perm = rng.permutation(array.ndim)
        array = array.transpose(np.argsort(perm))
        node = helper.make_node("Transpose", [inner], [name], perm=perm.tolist())
    elif how == "Mul":
        node = helper.make_node("Mul", [inner, inner], [name])
    else:
        node = helper.make_node(how, [inner], [name])
    tensor.CopyFrom(numpy_helper.from_array(np.array(array, order="C"), inner))
    model.graph.node.insert(0, node)
    return True


# -- names --------------------------------------------------------------------------------------------


@mutation
def same_name(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Two values of one name."""
    results = [n for n in model.graph.node if n.output]
    if not results:
        return False
    node = pick(rng, results)
    node.output[int(rng.integers(len(node.output)))] = pick(rng, names(model))
    return True


@mutation
def odd_name(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A value is called something odd everywhere: the network stays valid."""
    known = names(model)
    if not known:
        return False
    old, new = pick(rng, known), pick(rng, _ODD)
    if new in known:
        return False
    graph = model.graph
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        named.name = new if named.name == old else named.name
    for node in graph.node:
        node.input[:] = [new if i == old else i for i in node.input]
        node.output[:] = [new if o == old else o for o in node.output]
    return True


@mutation
def node_names(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """No node has a name, or all have the same."""
    name = pick(rng, ["", "node"])
    for node in model.graph.node:
        node.name = name
    return bool(model.graph.node)
