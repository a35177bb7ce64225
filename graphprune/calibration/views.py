"""A contraction as a matrix product: rows of inputs, columns of weights, for convolutions by unfolding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.contractions import ContractionWeight, contraction_weights
from graphprune.graph import Graph, Node, Value

FLOATS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True, eq=False)
class Shift:
    """What moves every output of a contraction by a constant: ``change of bias`` is ``factor * delta``.

    ``value`` is the bias itself, or that of the BatchNormalization that follows (then factor is its scale over
    its standard deviation): float ``[outputs]``.
    """

    value: Value
    factor: np.ndarray


@dataclass(frozen=True, eq=False)
class View:
    """A stored weight of Conv, Gemm or MatMul: ``y[rows, groups, outputs] = x[rows, groups, columns] w + shift``.

    Columns of a convolution run over (input channel, kernel position).
    """

    weight: ContractionWeight
    input: Value
    output: Value
    shift: Shift | None

    @property
    def name(self) -> str:
        """Of the weight."""
        return self.weight.value.name

    @property
    def node(self) -> Node:
        """That contracts."""
        return self.weight.node

    @property
    def is_conv(self) -> bool:
        """Whether inputs are unfolded."""
        return self.node.op == "Conv"

    @property
    def groups(self) -> int:
        """Conv groups, which sum over columns of their own."""
        return self.weight.conv_groups

    @property
    def kernel(self) -> tuple[int, ...]:
        """Of the convolution; empty for matrix products."""
        return self.weight.shape[2:] if self.is_conv else ()

    @property
    def columns(self) -> int:
        """Inputs of one group times kernel positions."""
        return self.weight.inputs * math.prod(self.kernel)

    def matrix(self, w: np.ndarray) -> np.ndarray:
        """The weight as ``[groups, columns, outputs]``, float64."""
        if self.is_conv:
            parts = w.reshape(self.groups, w.shape[0] // self.groups, -1)
            return np.ascontiguousarray(parts.transpose(0, 2, 1), dtype=np.float64)
        return np.asarray(np.moveaxis(w, self.weight.in_axis, 0)[None], np.float64)

    def tensor(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """The way back, in the stored layout."""
        if self.is_conv:
            return np.ascontiguousarray(matrix.transpose(0, 2, 1).reshape(shape))
        return np.ascontiguousarray(np.moveaxis(matrix[0], 0, self.weight.in_axis))

    def positions(self, y: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
        """``count`` places of an output of shape ``y`` to look at in each sample (all where there are no more)."""
        places = math.prod(self._spatial(y))
        return np.arange(places) if places <= count else np.sort(rng.choice(places, count, replace=False))

    def _spatial(self, y: Sequence[int]) -> tuple[int, ...]:
        return tuple(y[2:]) if self.is_conv else tuple(y[1:-1])

    def outputs(self, y: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Rows of a batch of outputs at ``places``: ``[rows, groups, outputs]``."""
        if self.is_conv:
            flat = y.reshape(len(y), y.shape[1], -1)[:, :, places].transpose(0, 2, 1)
            return flat.reshape(-1, self.groups, y.shape[1] // self.groups)
        flat = y.reshape(len(y), -1, y.shape[-1])[:, places]
        return flat.reshape(-1, 1, y.shape[-1])

    def rows(self, x: np.ndarray, y: Sequence[int], places: np.ndarray) -> np.ndarray:
        """Rows of a batch of inputs for the outputs at ``places``: ``[rows, groups, columns]``."""
        if not self.is_conv:
            return x.reshape(len(x), -1, x.shape[-1])[:, places].reshape(-1, 1, x.shape[-1])
        strides = self.node.attr("strides") or [1] * len(self.kernel)
        dilations = self.node.attr("dilations") or [1] * len(self.kernel)
        pads = self._pads(x.shape[2:], y[2:], strides, dilations)
        padded = np.pad(x, [(0, 0), (0, 0), *pads])
        sizes = padded.shape[2:]
        where = np.unravel_index(places, tuple(y[2:]))
        base = np.ravel_multi_index([p * s for p, s in zip(where, strides, strict=True)], sizes)
        flat = padded.reshape(len(x), x.shape[1], -1)
        kernel = [
            np.ravel_multi_index([k * d for k, d in zip(offset, dilations, strict=True)], sizes)
            for offset in itertools.product(*(range(k) for k in self.kernel))
        ]
        index = base[:, None] + np.array(kernel, np.int64)[None]  # [places, kernel positions]
        found = flat[:, :, index].transpose(0, 2, 1, 3)  # [n, places, channels, kernel positions]
        return found.reshape(-1, self.groups, x.shape[1] // self.groups * len(kernel))

    def _pads(
        self, x: Sequence[int], y: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Before and after every spatial axis, enough for the last window."""
        given = self.node.attr("pads") or [0] * (2 * len(self.kernel))
        how = self.node.attr("auto_pad", "NOTSET")
        how = how.decode() if isinstance(how, bytes) else how
        found = []
        for a, (size, out) in enumerate(zip(x, y, strict=True)):
            reach = (out - 1) * strides[a] + (self.kernel[a] - 1) * dilations[a] + 1
            before = given[a]
            if how in ("SAME_UPPER", "SAME_LOWER"):
                total = max(reach - size, 0)
                before = total // 2 if how == "SAME_UPPER" else total - total // 2
            found.append((before, max(reach - size - before, 0)))
        return found


def views(graph: Graph) -> list[View]:
    """Every contraction whose weight is stored as floating-point numbers and read once, in graph order."""
    return [
        View(w, x, w.node.outputs[0], _shift(w.node))
        for w in contraction_weights(graph)
        if (x := w.node.input(0)) is not None and _is_readable(w, x)
    ]


def _is_readable(weight: ContractionWeight, x: Value) -> bool:
    node, value, operand = weight.node, weight.value, weight.node.input(1)
    if x.shape is None or node.outputs[0].shape is None or value.dtype not in FLOATS:
        return False
    if x.constant or operand is None or not operand.constant or operand.consumers != [node]:
        return False
    if len(value.consumers) != 1 or not value.stored:
        return False
    if node.op == "Gemm":
        scales = node.attr("alpha", 1.0) != 1.0 or node.attr("beta", 1.0) != 1.0
        return not scales and not node.attr("transA", 0)
    return node.op == "Conv" or (node.op == "MatMul" and value.rank == 2 and x.rank >= 2)


def _shift(node: Node) -> Shift | None:
    y = node.outputs[0]
    bias = node.input(2)
    if node.op in ("Conv", "Gemm") and bias is not None:
        return _own(bias, y, node)
    if len(y.consumers) != 1 or y.is_output:
        return None
    reader = y.consumers[0]
    if reader.op == "BatchNormalization" and reader.input(0) is y:
        scale, beta, variance = reader.input(1), reader.input(2), reader.input(4)
        if scale is None or beta is None or variance is None or not (scale.constant and variance.constant):
            return None
        slope = scale.array().astype(np.float64) / np.sqrt(
            variance.array().astype(np.float64) + reader.attr("epsilon", 1e-5)
        )
        return _own(beta, y, reader, slope)
    if reader.op == "Add" and node.op == "MatMul":
        other = reader.input(1) if reader.input(0) is y else reader.input(0)
        return None if other is None else _own(other, y, reader)
    return None


def _own(value: Value, y: Value, node: Node, factor: np.ndarray | None = None) -> Shift | None:
    """A stored vector over the outputs that only ``node`` reads."""
    width = y.shape[1] if node.op in ("Conv", "BatchNormalization") else y.shape[-1]  # type: ignore[index]
    alone = value.stored and value.consumers == [node] and value.dtype in FLOATS
    if not alone or value.size != width or value.shape is None or value.shape[-1] != width:
        return None
    return Shift(value, np.ones(width) if factor is None else factor)
