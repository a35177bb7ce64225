"""Mutations of what surrounds the nodes: inputs, outputs, declared shapes, versions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.fuzz.mutations import activations, chance, mutation, names, near, pick, shapes


@mutation
def change_opset(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    if not model.opset_import:
        return False
    entry = pick(rng, model.opset_import)
    entry.version = pick(rng, [0, 1, 6, 7, 9, 11, 13, 17, 18, 21, 23, 26, 99, -1])
    return True


@mutation
def drop_opset(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """No opset, or the same domain twice."""
    if chance(rng, 0.5):
        del model.opset_import[:]
    else:
        model.opset_import.append(helper.make_opsetid("", pick(rng, [9, 13, 21])))
    return True


@mutation
def change_ir_version(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    model.ir_version = pick(rng, [0, 1, 3, 4, 8, 10, 13, 99, -1])
    return True


@mutation
def drop_shapes(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Recorded shapes of inner values go; sometimes those of the outputs too."""
    had = bool(model.graph.value_info)
    del model.graph.value_info[:]
    if chance(rng, 0.5):
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
    return had or bool(model.graph.output)


@mutation
def wrong_shape(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A recorded shape or element type that contradicts the graph."""
    found = activations(model)
    if not found:
        return False
    name = pick(rng, found)
    sizes = [int(s) for s in rng.integers(0, 9, int(rng.integers(0, 6)))]
    known = [v for v in model.graph.value_info if v.name == name]
    for value in known:
        model.graph.value_info.remove(value)
    model.graph.value_info.append(helper.make_tensor_value_info(name, int(rng.integers(1, 12)), sizes))
    return True


@mutation
def input_sizes(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """One size of an input: open, zero, other, huge; or no shape at all."""
    if not model.graph.input:
        return False
    tensor = pick(rng, model.graph.input).type.tensor_type
    if chance(rng, 0.1) or not tensor.shape.dim:
        tensor.ClearField("shape")
        return True
    dim = pick(rng, tensor.shape.dim)
    if chance(rng, 0.5):
        dim.dim_param = pick(rng, ["N", "H", ""])
    else:
        dim.dim_value = near(rng, dim.dim_value)
    return True


@mutation
def input_type(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    if not model.graph.input:
        return False
    pick(rng, model.graph.input).type.tensor_type.elem_type = int(rng.integers(0, 20))
    return True


@mutation
def drop_input(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    if not model.graph.input:
        return False
    del model.graph.input[int(rng.integers(len(model.graph.input)))]
    return True


@mutation
def add_output(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """An inner value, or an input, is an output too: the network stays valid."""
    sizes = shapes(model)
    name = pick(rng, activations(model) or names(model) or ["nothing"])
    kind, shape = sizes.get(name, (1, ()))
    info = helper.make_tensor_value_info(name, kind, list(shape) if name in sizes else None)
    model.graph.output.append(info)
    return True


@mutation
def twice_output(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    if not model.graph.output:
        return False
    model.graph.output.append(pick(rng, model.graph.output))
    return True


@mutation
def drop_output(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    if not model.graph.output:
        return False
    del model.graph.output[int(rng.integers(len(model.graph.output)))]
    return True


@mutation
def move_output(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """The model ends earlier: an output is another value."""
    if not model.graph.output:
        return False
    sizes = shapes(model)
    found = [n for n in activations(model) if n in sizes]
    if not found:
        return False
    name = pick(rng, found)
    kind, shape = sizes[name]
    pick(rng, model.graph.output).CopyFrom(helper.make_tensor_value_info(name, kind, list(shape)))
    return True


@mutation
def output_type(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A declared output of another type or shape than the graph computes."""
    if not model.graph.output:
        return False
    value = pick(rng, model.graph.output)
    value.CopyFrom(
        helper.make_tensor_value_info(
            value.name, int(rng.integers(1, 12)), rng.integers(0, 5, int(rng.integers(0, 5))).tolist()
        )
    )
    return True
