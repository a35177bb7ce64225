"""What may be done to a model so that it stays a readable protobuf: the table of mutations, and its helpers.

A mutation changes a model in place, takes every choice from the generator that it is given, and returns False
where the model has nothing that it could change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import numpy as np
import onnx
from onnx import numpy_helper

T = TypeVar("T")
Mutation = Callable[[onnx.ModelProto, np.random.Generator], bool]
MUTATIONS: dict[str, Mutation] = {}

LARGE = (2**31 - 1, 2**31, 2**40, 2**62, -(2**31), -(2**63))


def mutation(function: Mutation) -> Mutation:
    """Register a mutation under its function's name."""
    MUTATIONS[function.__name__] = function
    return function


# -- choices ------------------------------------------------------------------------------------------


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def chance(rng: np.random.Generator, p: float) -> bool:
    return bool(rng.random() < p)


def near(rng: np.random.Generator, value: int) -> int:
    """A number that an exporter, or a flipped bit, might have put in the place of ``value``."""
    near_by = [value + 1, value - 1, -value, value * 2, value // 2, 0, 1, 2, -1, 3]
    return pick(rng, LARGE) if chance(rng, 0.08) else pick(rng, near_by)


# -- what a graph holds -------------------------------------------------------------------------------


def fresh_name(model: onnx.ModelProto, hint: str) -> str:
    taken = set(names(model))
    return next(n for i in range(len(taken) + 1) if (n := f"{hint}_{i}") not in taken)


def names(model: onnx.ModelProto) -> list[str]:
    """Every value's name: inputs, initializers, results of nodes."""
    graph = model.graph
    found = [v.name for v in graph.input] + [t.name for t in graph.initializer]
    return list(dict.fromkeys(n for n in found + [o for node in graph.node for o in node.output] if n))


def activations(model: onnx.ModelProto) -> list[str]:
    """Results of nodes that some node reads."""
    read = {i for node in model.graph.node for i in node.input}
    return [o for node in model.graph.node if node.op_type != "Constant" for o in node.output if o in read]


def position_after(model: onnx.ModelProto, name: str) -> int:
    """Where a node that reads ``name`` may be inserted."""
    return next((i + 1 for i, node in enumerate(model.graph.node) if name in node.output), 0)


def read_instead(model: onnx.ModelProto, old: str, new: str, first: int = 0) -> None:
    """Nodes from number ``first`` on read ``new`` in the place of ``old``."""
    for node in list(model.graph.node)[first:]:
        node.input[:] = [new if i == old else i for i in node.input]


def opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def store(model: onnx.ModelProto, array: np.ndarray, hint: str = "fuzz") -> str:
    """A new initializer; returns its name."""
    name = fresh_name(model, hint)
    model.graph.initializer.append(numpy_helper.from_array(np.array(array, order="C"), name))
    return name


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, tuple[int | str, ...]]]:
    """Value name -> element type and sizes (a name where they are open), of those that inference finds."""
    with suppress(Exception):  # a mutant may be anything
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    found: dict[str, tuple[int, tuple[int | str, ...]]] = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            sizes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
            found[value.name] = tensor.elem_type, sizes
    for stored in model.graph.initializer:
        found[stored.name] = stored.data_type, tuple(stored.dims)
    return found


def array_of(tensor: onnx.TensorProto) -> np.ndarray | None:
    """The data of a stored tensor; None where it cannot be read (another mutation damaged it)."""
    try:
        return np.array(numpy_helper.to_array(tensor))
    except Exception:  # noqa: BLE001 - whatever is wrong with it
        return None


def stored_tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Initializers and the tensors of Constant nodes."""
    constants = [
        attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    return [*model.graph.initializer, *constants]


def put(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    """Other data under the same name."""
    tensor.CopyFrom(numpy_helper.from_array(np.array(array, order="C"), tensor.name))
