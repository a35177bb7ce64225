"""What a rewrite rule works with: what is known about values, and new nodes and constants."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.adding import free_name, stored_value
from graphprune.graph import operator_name
from graphprune.rewriting.known import Known

FLOATS = ("float16", "float32")
"""Types that every operator of a replacement computes in, in every opset and in onnxruntime, which proves it."""


MADE_BY = "graphprune.rewriting.made_by"
"""Key of a new node's ``meta`` (never written to files): the rule that made it."""


class Refused(Exception):
    """The rule is meant for the node and cannot replace it; the message says why."""


def operator(node: ir.Node) -> str:
    """The operator as ``graph.Node.op`` spells it: ``domain::Name`` outside the standard domain."""
    return operator_name(node.domain, node.op_type)


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute as a plain Python value."""
    found = node.attributes.get(name)
    if found is None:
        return default
    return list(found.value) if isinstance(found.value, tuple) else found.value


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Input ``index``, or None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def data(node: ir.Node) -> ir.Value:
    """The first input, which the operator's definition makes mandatory. Raises Refused."""
    value = operand(node, 0)
    if value is None:
        raise Refused("it has no input")
    return value


def single_reader(value: ir.Value) -> bool:
    """Whether one node, and nothing else, reads ``value``."""
    return len(value.uses()) == 1 and not value.is_graph_output()


class Context:
    """One rule at work on a model; ``lacks`` are operators that its replacements must do without.

    Nodes are collected and reach the model only if the rule returns: see ``rewriting.engine``.
    """

    def __init__(self, model: ir.Model, known: Known, lacks: Collection[str], names: set[str]) -> None:
        self.model, self.known, self.lacks = model, known, lacks
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self.nodes: list[ir.Node] = []
        self.stored: list[ir.Value] = []
        self.heirs: list[tuple[ir.Value, ir.Value]] = []
        self._names = names
        self._stem = ""

    def begin(self, node: ir.Node) -> None:
        """Forget what was built for another node; new names start with this one's."""
        self.nodes, self.stored, self.heirs = [], [], []
        self._stem = node.name or node.outputs[0].name or node.op_type

    # -- what is known ------------------------------------------------------------------------------

    def has(self, op: str) -> bool:
        """Whether the target has this operator."""
        return op not in self.lacks

    def sizes(self, value: ir.Value) -> tuple[int | None, ...]:
        """Sizes that hold for every input, None for others. Raises Refused where the rank is not known."""
        found = self.known.sizes(value)
        if found is None:
            raise Refused(f"the shape of {value.name!r} is not known")
        return found

    def size(self, value: ir.Value, axis: int) -> int:
        """The size of one axis. Raises Refused where it depends on the model's input."""
        found = self.sizes(value)[axis]
        if found is None:
            raise Refused(
                f"the size of axis {axis} of {value.name!r} depends on the model's input: give --input-shape"
            )
        return found

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """The data of a constant; None for anything else."""
        return self.known.array(value)

    def float_type(self, value: ir.Value) -> np.dtype[Any]:
        """The element type, for constants that meet ``value``. Raises Refused for other than FLOATS."""
        name = self.known.dtype(value)
        if name not in FLOATS:
            raise Refused(f"{value.name!r} holds {name or 'an unknown type'}, not {', '.join(FLOATS)}")
        return np.dtype(name)

    # -- what is built ------------------------------------------------------------------------------

    def op(self, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The output of a new node. Raises Refused where the target lacks the operator."""
        if not self.has(op):
            raise Refused(f"its replacement needs {op}, which the target lacks too")
        name = self.unique(f"{self._stem}/{op}")
        attrs = [ir.convenience.convert_attribute(k, v) for k, v in attributes.items() if v is not None]
        output = ir.Value(name=self.unique(f"{name}_output"))
        self.nodes.append(ir.Node("", op, inputs, attrs, outputs=[output], name=name))
        return output

    def constant(self, array: np.ndarray, name: str = "constant") -> ir.Value:
        """A new initializer. ``name`` says what it is; the node's name is put in front."""
        value = stored_value(self.unique(f"{self._stem}/{name}"), array)
        self.stored.append(value)
        return value

    def instead(self, old: ir.Value, array: np.ndarray) -> ir.Value:
        """The stored tensor ``old`` with other numbers. Takes over the name where nobody else reads ``old``."""
        new = self.constant(array, (old.name or "weight").rpartition("/")[2])
        self.heirs.append((new, old))
        return new

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """A constant of rank 0 in the element type of ``like``. Raises Refused for other than floats."""
        return self.constant(np.array(number, self.float_type(like)))

    def squeeze(self, value: ir.Value, axes: list[int]) -> ir.Value:
        """Drop axes of size 1."""
        if self.opset < 13:
            return self.op("Squeeze", value, axes=axes)
        return self.op("Squeeze", value, self.constant(np.array(axes, np.int64), "axes"))

    def unique(self, name: str) -> str:
        """``name``, or with a number where a tensor or node of the model has it already."""
        return free_name(name, self._names)
