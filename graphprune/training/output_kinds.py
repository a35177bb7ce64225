"""What a model's outputs mean, read off the operators that make them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch

from graphprune.graph import Graph, Node, Value

FLOATS = ("float32", "float64", "float16", "bfloat16")

SAME_ORDER = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that keep the elements and their order: an output is what stands before them."""


class Kind(StrEnum):
    """What the numbers of an output are."""

    probabilities = "probabilities"
    log_probabilities = "log-probabilities"
    bernoulli = "bernoulli"
    logits = "logits"
    features = "features"


@dataclass(frozen=True)
class Output:
    """One output of floating point.

    ``index`` is its place among the graph's outputs. Where there are classes, its elements in order are
    ``[outer, classes, inner]``: the distributions are over the middle axis.
    """

    index: int
    name: str
    kind: Kind
    shape: tuple[int, ...] | None
    classes: int = 0
    inner: int = 1

    def by_class(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` as ``[outer, classes, inner]``."""
        return values.reshape(-1, self.classes, self.inner)


def float_outputs(graph: Graph) -> list[Output]:
    """The outputs that a loss can use, in order; whole numbers, truth values and texts are left out.

    Softmax, LogSoftmax and Sigmoid are recognised behind operators that keep the order of elements.
    Otherwise ``[N, C]`` (or ``[N, C, 1, 1]``) with C from 2 are logits, and everything else features.
    """
    found = []
    for index, value in enumerate(graph.outputs):
        if not value.dtype or value.dtype in FLOATS:
            found.append(_read(index, value))
    return found


def _read(index: int, output: Value) -> Output:
    value = output
    while value.producer is not None and value.producer.op in SAME_ORDER:
        source = value.producer.input(0)
        if source is None:
            break
        value = source
    node = value.producer
    if node is not None and node.op == "Sigmoid":
        return Output(index, output.name, Kind.bernoulli, output.shape)
    if node is not None and node.op in ("Softmax", "LogSoftmax"):
        classes, inner = _softmax_axis(node, value)
        if classes >= 2:
            kind = Kind.probabilities if node.op == "Softmax" else Kind.log_probabilities
            return Output(index, output.name, kind, output.shape, classes, inner)
        return Output(index, output.name, Kind.features, output.shape)
    shape = output.shape or ()
    if len(shape) >= 2 and shape[1] >= 2 and math.prod(shape[2:]) == 1:
        return Output(index, output.name, Kind.logits, shape, shape[1])
    return Output(index, output.name, Kind.features, output.shape)


def _softmax_axis(node: Node, value: Value) -> tuple[int, int]:
    """Classes and elements behind them of a softmax (ONNX Softmax, LogSoftmax); 0 classes where unknown.

    Before opset 13 all axes from ``axis`` on are one distribution.
    """
    shape = value.shape
    if shape is None:
        return 0, 1
    old = node.opset < 13
    axis = int(node.attr("axis", 1 if old else -1)) % max(1, len(shape))
    if axis == 0 and len(shape) > 1:
        return 0, 1  # over the batch
    if old:
        return math.prod(shape[axis:]), 1
    return shape[axis], math.prod(shape[axis + 1 :])
