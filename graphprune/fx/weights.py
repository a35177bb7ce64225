"""Which constants of a graph are weights, to be trained, and which are numbers of a formula."""

from __future__ import annotations

import torch

from graphprune.fx.attributes import torch_dtype
from graphprune.fx.batch import Analyses
from graphprune.fx.registry import find_converter
from graphprune.graph import Value


def alias_root(value: Value) -> Value:
    """The value itself, behind any number of Identity nodes."""
    while value.producer is not None and value.producer.op == "Identity":
        source = value.producer.input(0)
        if source is None:
            break
        value = source
    return value


def is_source(value: Value) -> bool:
    """Whether ``value`` is a tensor of the file: stored, or one number filled to a stored shape."""
    if value.stored or value.producer is None or value.producer.op != "ConstantOfShape":
        return value.stored
    shape = value.producer.input(0)
    return shape is not None and shape.stored


def find_trainable(analyses: Analyses) -> set[Value]:
    """Weights, and the constants that operators compute from them (when the module runs: gradients pass)."""
    graph = analyses.graph
    found = {v for v in graph.values.values() if is_source(v) and _is_weight(v)}
    for node in graph.nodes:
        entry = find_converter(node.op)
        if entry is not None and any(
            v in found for i, v in enumerate(node.inputs) if v is not None and i not in entry.literals
        ):
            found.update(o for o in node.outputs if analyses.is_fixed(o) and _is_float(o))
    return found


def _is_float(value: Value) -> bool:
    return torch_dtype(value.dtype) == torch.float32


def _is_weight(value: Value) -> bool:
    return _is_float(value) and value.size > 0 and (value.size > 1 or _has_weight_use(value))


def _has_weight_use(value: Value) -> bool:
    """Whether some operator reads a one-element tensor as more than a number of its formula."""
    for node in value.consumers:
        entry = find_converter(node.op)
        if entry is None:
            continue
        if node.op == "Identity":
            if _has_weight_use(node.outputs[0]):
                return True
        elif not entry.arithmetic and any(
            v is value and i not in entry.literals for i, v in enumerate(node.inputs)
        ):
            return True
    return False
