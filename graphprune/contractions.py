"""Weights of contractions, and which of their axes are outputs and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphprune.graph import Graph, Node, Value


@dataclass(frozen=True)
class ContractionWeight:
    """A stored weight ``value`` of ``node``: its output axis, its input axis, and conv groups."""

    value: Value
    node: Node
    out_axis: int
    in_axis: int
    conv_groups: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stored tensor."""
        assert self.value.shape is not None
        return self.value.shape

    @property
    def group_axis(self) -> int:
        """Along which conv groups follow one another."""
        return self.in_axis if self.node.op == "ConvTranspose" else self.out_axis

    @property
    def stacked(self) -> int:
        """How many conv groups' inputs lie along ``in_axis``."""
        return self.conv_groups if self.group_axis == self.in_axis else 1

    @property
    def inputs(self) -> int:
        """What every output sums over, kernel positions aside."""
        return self.shape[self.in_axis] // self.stacked


def contraction_weights(graph: Graph) -> list[ContractionWeight]:
    """Every stored weight of Conv, ConvTranspose, Gemm and MatMul that outputs depend on, once, in graph order."""
    found: dict[Value, ContractionWeight] = {}
    live = live_nodes(graph)
    for node in graph.nodes:
        operands = _OPERANDS.get(node.op) if node in live else None
        for index, axes in (operands(node) if operands else {}).items():
            value = node.input(index)
            if value is None or not value.constant or value.rank < 2:
                continue
            stored, order = _behind(value)
            if stored is None or stored in found:
                continue
            out_axis, in_axis = (order[a % value.rank] for a in axes)
            found[stored] = ContractionWeight(stored, node, out_axis, in_axis, node.attr("group", 1) or 1)
    return list(found.values())


def live_nodes(graph: Graph) -> set[Node]:
    """Nodes that an output of the graph is computed from."""
    found: set[Node] = set()
    stack = [v.producer for v in graph.outputs]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.add(node)
            stack.extend(v.producer for v in (*node.inputs, *node.captured) if v is not None)
    return found


Axes = tuple[int, int]
"""Output axis and input axis."""


def _gemm(node: Node) -> dict[int, Axes]:
    turned_a, turned_b = node.attr("transA", 0), node.attr("transB", 0)
    return {0: (1, 0) if turned_a else (0, 1), 1: (0, 1) if turned_b else (1, 0)}


_OPERANDS: dict[str, Callable[[Node], dict[int, Axes]]] = {
    "Conv": lambda node: {1: (0, 1)},
    "ConvTranspose": lambda node: {1: (1, 0)},
    "Gemm": _gemm,
    "MatMul": lambda node: {0: (-2, -1), 1: (-1, -2)},
}
"""Operator -> its operands that may be weights, with their axes."""


def _behind(value: Value) -> tuple[Value | None, list[int]]:
    """The stored tensor behind Identity, Cast and Transpose, and the order of its axes in ``value``."""
    order = list(range(value.rank))
    while not value.stored:
        node = value.producer
        if node is None or node.op not in ("Identity", "Cast", "Transpose") or node.inputs[0] is None:
            return None, order
        value = node.inputs[0]
        if node.op == "Transpose":
            permutation = node.attr("perm") or list(range(value.rank))[::-1]
            order = [permutation[a] for a in order]
    return value, order


def output_weights(graph: Graph) -> set[Value]:
    """Weights of the last contractions: those whose results reach an output through no other one."""
    by_node: dict[Node, list[Value]] = {}
    for weight in contraction_weights(graph):
        by_node.setdefault(weight.node, []).append(weight.value)
    found: set[Value] = set()
    stack, seen = [v.producer for v in graph.outputs], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in by_node:
            found.update(by_node[node])
        else:
            stack.extend(v.producer for v in node.inputs if v is not None)
    return found


def depthwise_weights(graph: Graph) -> set[Value]:
    """Weights of convolutions with one input channel in each conv group."""
    return {w.value for w in contraction_weights(graph) if w.conv_groups > 1 and w.inputs == 1}
