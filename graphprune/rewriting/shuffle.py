"""A chain of data movement that reorders one axis -> Gather."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from graphprune.graph import Graph
from graphprune.rewriting.context import Context, Refused, attribute, data, operand, operator, single_reader
from graphprune.rewriting.registry import rewrite_rule

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""They leave the order of the elements as it is: the shape of their result says all."""


@rewrite_rule("channel-shuffle", replaces=("Transpose",), visits=(*RESHAPES, "Transpose", "Gather"))
def channel_shuffle(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """Reshape, Transpose, Reshape (a channel shuffle) -> Gather along the axis that they reorder.

    Recognised by what the chain that ends in the node does to a tensor of positions, for every size that is
    analysed; its spelling does not matter. The chain may end in a Gather that takes a part of the positions
    (ShuffleNet V2 splits what it shuffles). Bit for bit the same.
    """
    transposes = False
    for chain in _chains(node):
        transposes |= chain[0].op_type == "Transpose"
        found = _reordered(chain, context) if transposes else None
        if found is not None:
            axis, order = found
            return [context.op("Gather", data(chain[0]), context.constant(order, "order"), axis=axis)]
    if node.op_type == "Transpose":
        raise Refused("it swaps whole axes: not a reordering of the positions of one")
    return None


def _chains(node: ir.Node) -> Iterator[list[ir.Node]]:
    """Chains of movement that end in ``node`` and that nothing else reads from, shortest first."""
    chain = [node]
    while True:
        yield chain
        before = data(chain[0]).producer()
        if before is None or operator(before) not in (*RESHAPES, "Transpose"):
            return
        selected = all(user.op_type == "Gather" for user in before.outputs[0].consumers())
        if not (single_reader(before.outputs[0]) or (selected and not before.outputs[0].is_graph_output())):
            return
        chain = [before, *chain]


def _reordered(chain: Sequence[ir.Node], context: Context) -> tuple[int, np.ndarray] | None:
    """The axis that a chain reorders and the order, int64; None where it does anything else."""
    found = [_order(chain, graph, context) for graph in context.known.graphs]
    first = found[0]
    if first is None or not all(
        other is not None and other[0] == first[0] and np.array_equal(other[1], first[1]) for other in found
    ):
        return None
    return first


def _order(chain: Sequence[ir.Node], graph: Graph, context: Context) -> tuple[int, np.ndarray] | None:
    source = graph.values.get(data(chain[0]).name or "")
    end = graph.values.get(chain[-1].outputs[0].name or "")
    if source is None or source.shape is None or end is None or end.rank != source.rank:
        return None
    shape = source.shape
    positions = np.arange(source.size).reshape(shape)
    moved: np.ndarray | None = positions
    for node in chain:
        result = graph.values.get(node.outputs[0].name or "")
        if moved is None or result is None or result.shape is None:
            return None
        moved = _moved(node, moved, result.shape, context)
    if moved is None or np.array_equal(moved, positions):
        return None
    for axis, size in enumerate(shape):
        line = moved[tuple(slice(None) if a == axis else slice(1) for a in range(len(shape)))].reshape(-1)
        stride = int(np.prod(shape[axis + 1 :], dtype=np.int64))
        order = line // stride % size
        if np.array_equal(moved, positions.take(order, axis)):
            return axis, order
    return None


def _moved(node: ir.Node, x: np.ndarray, shape: tuple[int, ...], context: Context) -> np.ndarray | None:
    """What one node does to positions; ``shape`` is its result's."""
    if node.op_type == "Transpose":
        return x.transpose(attribute(node, "perm"))
    if node.op_type == "Gather":
        indices = context.array(operand(node, 1))
        return None if indices is None else x.take(indices, attribute(node, "axis", 0))
    return x.reshape(shape) if x.size == np.prod(shape, dtype=np.int64) else None
