"""New tensors in an ONNX graph: free names, and initializers as each IR version wants them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def names_of(model: ir.Model) -> set[str]:
    """Names of all tensors and nodes, those of sub-graphs included."""
    found: set[str | None] = set()
    for graph in (model.graph, *model.graph.subgraphs()):
        found |= {v.name for v in (*graph.inputs, *graph.initializers.values())}
        for node in graph:
            found |= {node.name, *(v.name for v in node.outputs)}
    return {name for name in found if name}


def free_name(name: str, taken: set[str]) -> str:
    """``name``, or with a number where it is in ``taken``, to which the result is added."""
    found, n = name, 1
    while found in taken:
        found, n = f"{name}_{n}", n + 1
    taken.add(found)
    return found


def stored_value(name: str, array: np.ndarray, dtype: ir.DataType | None = None) -> ir.Value:
    """A value that holds ``array`` (copied, of any rank); not yet in a graph."""
    tensor = ir.Tensor(np.array(array, order="C"), dtype=dtype, name=name)  # keeps rank 0
    kind = ir.TensorType(tensor.dtype)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=kind, const_value=tensor)


def add_initializer(model: ir.Model, value: ir.Value) -> None:
    """Make ``value`` (see ``stored_value``) an initializer."""
    model.graph.register_initializer(value)
    if model.ir_version < 4:  # before IR 4 every initializer is a graph input too
        model.graph.inputs.append(value)
