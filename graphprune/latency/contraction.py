"""One contraction as onnxruntime times it: everything but its channel counts, and models of it alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.contractions import ContractionWeight

LARGEST_WEIGHT_BYTES = 1_000_000_000
"""Larger ones do not fit the one message that a timed model is."""

_ATTRIBUTES = ("strides", "pads", "dilations", "auto_pad", "output_padding")
_TYPES = ("float32", "float16", "float64")

DEPTHWISE = 0
"""``groups`` of a convolution with as many groups as channels."""


@dataclass(frozen=True)
class Contraction:
    """A convolution or matrix product with any channel counts.

    size: batch and spatial sizes of a convolution's input, or the rows of a matrix product's. groups: of a
    convolution, DEPTHWISE where every input channel is one. multiplier: outputs of one such channel.
    """

    op: str
    dtype: str
    size: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    attributes: tuple[tuple[str, tuple[int, ...] | str], ...] = ()
    groups: int = 1
    multiplier: int = 1

    def key(self, inputs: int, outputs: int) -> str:
        """The name in the cost table, at these channel counts."""
        attributes = " ".join(f"{k}={v}" for k, v in self.attributes)
        shape = f"{list(self.size)} {inputs}->{outputs} k{list(self.kernel)} g{self.groups}x{self.multiplier}"
        return f"{self.op} {self.dtype} {shape} {attributes}".replace(", ", ",").strip()

    def weight_shape(self, inputs: int, outputs: int) -> tuple[int, ...]:
        """In ONNX's order."""
        if self.op == "MatMul":
            return inputs, outputs
        groups = self._groups(inputs)
        if self.op == "ConvTranspose":
            return inputs, outputs // groups, *self.kernel
        return outputs, inputs // groups, *self.kernel

    def work(self, inputs: int, outputs: int) -> float:
        """About how many multiply-accumulates one run takes (strides left out)."""
        return math.prod(self.weight_shape(inputs, outputs)) * math.prod(self.size)

    def _groups(self, inputs: int) -> int:
        return inputs if self.groups == DEPTHWISE else self.groups


def contraction_of(weight: ContractionWeight) -> Contraction | None:
    """What a weight's operator is at the analysed sizes; None for forms that are not timed alone."""
    node, value = weight.node, weight.value
    position = next((i for i in (0, 1) if node.input(i) is not None and not _is_constant(node.input(i))), 0)
    x = node.input(position)
    if (
        x is None
        or x.shape is None
        or not all(x.shape)
        or x.dtype != value.dtype
        or value.dtype not in _TYPES
    ):
        return None
    itemsize = np.dtype(value.dtype).itemsize
    if value.size * itemsize > LARGEST_WEIGHT_BYTES:
        return None
    if node.op in ("Gemm", "MatMul"):
        if value.rank != 2 or x.rank < 2:
            return None
        return Contraction("MatMul", value.dtype, (x.size // weight.inputs,))
    depthwise = weight.conv_groups > 1 and weight.inputs == 1 and node.op == "Conv"
    if "output_shape" in node.attrs:
        return None
    found = {name: node.attr(name) for name in _ATTRIBUTES}
    attributes = tuple((k, v if isinstance(v, str) else tuple(v)) for k, v in found.items() if v)
    return Contraction(
        node.op,
        value.dtype,
        (x.shape[0], *x.shape[2:]),
        weight.shape[2:],
        attributes,
        DEPTHWISE if depthwise else weight.conv_groups,
        weight.shape[0] // weight.conv_groups if depthwise else 1,
    )


def _is_constant(value: object) -> bool:
    return bool(getattr(value, "constant", False))


def timed_model(contraction: Contraction, points: Sequence[tuple[int, int]]) -> bytes:
    """A model with one operator, named ``t0``, ``t1``, ..., at each of ``points`` (inputs, outputs); inputs ``x<n>``.

    Operators with equally many inputs read the same one, as layers of a network do that onnxruntime has brought
    into its own layout once.
    """
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(4099).astype(contraction.dtype)
    kind = ir.TensorType(ir.DataType.from_numpy(np.dtype(contraction.dtype)))
    inputs: dict[int, ir.Value] = {}
    nodes, weights, outputs = [], [], []
    for number, (n_in, n_out) in enumerate(points):
        if n_in not in inputs:
            shape = ir.Shape(input_shape(contraction, n_in))
            inputs[n_in] = ir.Value(name=f"x{n_in}", shape=shape, type=kind)
        array = np.resize(noise, contraction.weight_shape(n_in, n_out))
        weight = ir.Value(
            name=f"w{number}", shape=ir.Shape(array.shape), type=kind, const_value=ir.Tensor(array)
        )
        node = ir.Node(
            "",
            contraction.op,
            [inputs[n_in], weight],
            _attributes(contraction, n_in),
            outputs=[ir.Value(name=f"t{number}", type=kind)],
            name=f"t{number}",
        )
        nodes.append(node)
        weights.append(weight)
        outputs.append(node.outputs[0])
    graph = ir.Graph(
        list(inputs.values()),
        outputs,
        nodes=nodes,
        initializers=weights,
        opset_imports={"": 17},
        name="timed",
    )
    return bytes(ir.to_proto(ir.Model(graph, ir_version=8)).SerializeToString())


def input_shape(contraction: Contraction, inputs: int) -> tuple[int, ...]:
    """Of the activation."""
    if contraction.op == "MatMul":
        return contraction.size[0], inputs
    return contraction.size[0], inputs, *contraction.size[1:]


def _attributes(contraction: Contraction, inputs: int) -> list[ir.Attr]:
    if contraction.op == "MatMul":
        return []
    found = [ir.AttrInt64("group", contraction._groups(inputs))]
    for name, value in contraction.attributes:
        found.append(
            ir.AttrString(name, value) if isinstance(value, str) else ir.AttrInt64s(name, list(value))
        )
    return found
