"""Constants that are none: data computed from a size that the model leaves open.

At the analysed sizes such a value looks like any other constant, but it must not be stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from graphprune.graph import Graph, Node, Value

_SIZES = ("Shape", "Size")
_NO_WEIGHTS = ("int64", "bool", "string")


def made_from_sizes(graph: Graph) -> set[int]:
    """Numbers of the nodes that it takes to compute constants that could be stored, but follow some tensor's size.

    Empty where there are no such constants.
    """
    found: set[int] = set()
    stack = [node for node in _computed(graph) if any(_may_be_stored(v) for v in node.outputs)]
    while stack:
        node = stack.pop()
        if node.index not in found:
            found.add(node.index)
            made_from = (v for v in (*node.inputs, *node.captured) if v is not None)
            stack.extend(v.producer for v in made_from if v.producer is not None)
    return found


def unlike(graph: Graph, others: Mapping[str, Value]) -> Iterator[Value]:
    """Values of ``graph`` that could be stored, but differ from what ``others`` has under the same name.

    ``others``: of the same model at other sizes.
    """
    varying: set[Value] = set()
    for node in _computed(graph):
        inputs = (*node.inputs, *node.captured)
        for value in node.outputs:
            twin = others.get(value.name)
            if twin is None or twin.shape != value.shape:
                differs = True
            elif value.known is not None and twin.known is not None:
                differs = not np.array_equal(value.known, twin.known)
            else:
                differs = node.op in _SIZES or any(v in varying for v in inputs)
            if differs:
                varying.add(value)
                if _may_be_stored(value):
                    yield value


def _computed(graph: Graph) -> Iterator[Node]:
    """Nodes with constant results that depend on the size of a tensor that is not constant."""
    found: set[Value] = set()
    for node in graph.nodes:
        first = node.input(0)
        if node.op in _SIZES:
            tainted = first is not None and (not first.constant or first in found)
        else:
            tainted = any(v in found for v in (*node.inputs, *node.captured) if v is not None)
        if tainted and any(o.constant for o in node.outputs):
            found.update(node.outputs)
            yield node


def _may_be_stored(value: Value) -> bool:
    """Other constants are sizes and indices, which are followed at run time."""
    if value.known is not None and value.known.dtype.kind in "iub":
        return False
    return value.constant and value.size > 1 and value.dtype not in _NO_WEIGHTS
