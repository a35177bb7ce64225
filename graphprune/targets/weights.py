"""The weights of a written file as its contractions multiply them, whatever form they are stored in.

Reads the file by itself, without the code that prunes, so that a mistake there does not hide here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphprune.errors import ModelError
from graphprune.folding import constant_array
from graphprune.graph import Graph, Node, Value
from graphprune.targets.target import Target

_KEPT_AS_IT_IS = frozenset({"Cast", "DequantizeLinear", "Identity", "Transpose"})
"""Operators between a stored weight and the contraction that every toolchain folds away."""


@dataclass(frozen=True, eq=False)
class ReadWeight:
    """A constant operand of a contraction.

    name: of the tensor behind the operators that toolchains fold away: a stored one, or one that others make up.
    order: axis of that tensor behind every axis of the operand.
    axes: output axis and input axis of the operand.
    computed: operators that make that tensor up from other constants (empty: it is stored).
    """

    name: str
    node: Node
    operand: Value
    order: tuple[int, ...]
    axes: tuple[int, int]
    computed: frozenset[str]

    @property
    def conv_groups(self) -> int:
        """Groups of the convolution; 1 elsewhere."""
        return int(self.node.attr("group", 1) or 1) if self.node.op in ("Conv", "ConvTranspose") else 1

    @cached_property
    def nonzero(self) -> np.ndarray:
        """Where the weight is not zero, as it is multiplied: bool ``[groups, outputs, inputs, kernel...]``.

        ``groups`` are those of a convolution or the batch of a MatMul. Raises ModelError where the weight
        cannot be computed.
        """
        try:
            array: np.ndarray = np.not_equal(constant_array(self.operand), 0)
        except ValueError as error:
            raise ModelError(f"weight {self.name!r} of {self.node.name!r} cannot be read: {error}") from error
        output, source = self.axes
        if self.node.op in ("Conv", "ConvTranspose"):
            split = array.reshape(self.conv_groups, -1, *array.shape[1:])
            return split if output < source else split.swapaxes(1, 2)
        matrix = array if output < source else array.swapaxes(-1, -2)
        return matrix.reshape(-1, *matrix.shape[-2:])

    @cached_property
    def flat(self) -> np.ndarray:
        """Where the stored tensor is not zero, row-major (what a careless reader of N:M looks at)."""
        operand: np.ndarray = np.not_equal(constant_array(self.operand), 0)
        return operand.transpose(np.argsort(self.order)).reshape(-1)

    def stored_axes(self) -> list[int]:
        """Axes of the stored tensor in the order outputs, inputs, kernel..."""
        rest = [a for a in range(self.operand.rank) if a not in self.axes]
        return [self.order[a] for a in (*self.axes, *rest)]


def read_weights(graph: Graph) -> list[ReadWeight]:
    """Every constant weight of Conv, ConvTranspose, Gemm and MatMul, once for each way it is read."""
    found: dict[tuple[object, ...], ReadWeight] = {}
    for node in graph.nodes:
        for index, axes in _operands(node):
            value = node.input(index)
            if value is None or not value.constant or value.rank < 2:
                continue
            weight = _read(node, value, (axes[0] % value.rank, axes[1] % value.rank))
            found.setdefault((weight.name, *weight.stored_axes()[:2], weight.conv_groups), weight)
    return list(found.values())


def runs_dense(weight: ReadWeight, target: Target) -> str:
    """Why ``target`` runs ``weight`` dense whatever its numbers are; empty where it need not."""
    if weight.node.op not in target.sparse_operators:
        return f"{target.name} runs the weights of {weight.node.op} so"
    if weight.conv_groups > 1 and not target.sparse_grouped:
        return f"{target.name} runs grouped convolutions so"
    return ""


def _operands(node: Node) -> Iterator[tuple[int, tuple[int, int]]]:
    yield from _OPERANDS[node.op](node) if node.op in _OPERANDS else ()


def _gemm(node: Node) -> list[tuple[int, tuple[int, int]]]:
    return [
        (0, (1, 0) if node.attr("transA", 0) else (0, 1)),
        (1, (0, 1) if node.attr("transB", 0) else (1, 0)),
    ]


_OPERANDS: dict[str, Callable[[Node], list[tuple[int, tuple[int, int]]]]] = {
    "Conv": lambda node: [(1, (0, 1))],  # [K, C / groups, kernel...]
    "ConvTranspose": lambda node: [(1, (1, 0))],  # [C, K / groups, kernel...]
    "Gemm": _gemm,
    "MatMul": lambda node: [
        (0, (-2, -1)),
        (1, (-1, -2)),
    ],  # [..., N, K] on the left, [..., K, N] on the right
}
"""Operator -> input that may be a weight, with its output and input axis (ONNX operator specification)."""


def _read(node: Node, operand: Value, axes: tuple[int, int]) -> ReadWeight:
    """Follow ``operand`` to the tensor that is stored."""
    order = list(range(operand.rank))
    value = operand
    while not value.stored and value.producer is not None and value.producer.op in _KEPT_AS_IT_IS:
        maker = value.producer
        if maker.op == "Transpose":
            permutation = maker.attr("perm") or list(range(value.rank))[::-1]
            order = [permutation[a] for a in order]
        source = maker.input(0)
        if source is None:
            break
        value = source
    makers = frozenset() if value.stored else frozenset(_makers(value))
    return ReadWeight(value.name, node, operand, tuple(order), axes, makers)


def _makers(value: Value) -> Iterator[str]:
    """Operators that compute a constant."""
    stack, seen = [value], {value}
    while stack:
        node = stack.pop().producer
        if node is None or node.op == "Constant":
            continue
        yield node.op
        for source in node.inputs:
            if source is not None and source not in seen:
                seen.add(source)
                stack.append(source)
