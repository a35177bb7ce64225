"""The framework-neutral view of a model: values, nodes, stored tensors; ONNX operator vocabulary.

Shapes here are concrete: front ends put a size in the place of every dynamic axis, for the
analysis only. Nothing in this module knows a file format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(eq=False, slots=True)
class Value:
    """One tensor of the graph.

    ``known`` is the value itself at the analysed sizes, where it is a small constant (shape arithmetic included).
    ``constant``: the same for every input. Integers that only sizes decide count as constant; other data does not
    where the model leaves such a size open.
    ``stored`` marks a weight: an initializer, a Constant node's output, or a computed constant that
    surgery may store; ``load`` reads its data on demand, so that analysis need not touch weights.
    """

    name: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    known: np.ndarray | None = None
    constant: bool = False
    stored: bool = False
    load: Callable[[], np.ndarray] | None = None
    producer: Node | None = None
    consumers: list[Node] = field(default_factory=list)
    is_output: bool = False

    @property
    def rank(self) -> int:
        """Number of axes; -1 where the shape is unknown."""
        return -1 if self.shape is None else len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements; 0 where the shape is unknown."""
        return 0 if self.shape is None else math.prod(self.shape)

    def array(self) -> np.ndarray:
        """The constant's data. Raises ValueError for a value that is not constant."""
        if self.known is not None:
            return self.known
        if self.load is None:
            raise ValueError(f"{self.name!r} is not a stored constant")
        return self.load()

    def __repr__(self) -> str:
        return f"Value({self.name!r}, {self.dtype}, {self.shape})"


def operator_name(domain: str, op_type: str) -> str:
    """``Conv``, or ``domain::Name`` outside the standard domain: how ``Node.op`` spells an operator."""
    return op_type if domain in ("", "ai.onnx") else f"{domain}::{op_type}"


@dataclass(eq=False, slots=True)
class Node:
    """One operator call. ``op`` is the ONNX name, prefixed ``domain::`` outside the standard domain."""

    index: int
    op: str
    name: str
    inputs: list[Value | None]
    outputs: list[Value]
    attrs: Mapping[str, Any]
    opset: int
    captured: list[Value] = field(default_factory=list)
    """Values of this graph that the node's sub-graphs (If, Loop, Scan) read."""

    def input(self, index: int) -> Value | None:
        """Input ``index``, or None where it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def attr(self, name: str, default: Any = None) -> Any:
        """Attribute ``name`` as a plain Python value."""
        return self.attrs.get(name, default)

    def __repr__(self) -> str:
        return f"Node({self.op} {self.name!r})"


@dataclass(eq=False)
class Graph:
    """Nodes in topological order, and every value by name."""

    nodes: list[Node]
    values: dict[str, Value]
    inputs: list[Value]
    outputs: list[Value]
    opset: int
    guessed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Input shapes in which a size was guessed (input name -> the shape used)."""
    open_axes: dict[str, dict[int, str]] = field(default_factory=dict)
    """Sizes that the model leaves open, whatever was analysed: input name -> axis -> its name, or ""."""
    notes: list[str] = field(default_factory=list)
    """Sentences the user should see (dropped annotations and the like)."""

    def stored(self) -> Iterator[Value]:
        """Every weight-like constant, in graph order."""
        return (value for value in self.values.values() if value.stored)
