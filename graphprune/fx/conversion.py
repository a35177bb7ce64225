"""What a converter sees: the fx graph under construction, and the constants behind a node's inputs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from graphprune.errors import ConversionError
from graphprune.folding import constant_array
from graphprune.fx.attributes import Attributes, torch_dtype
from graphprune.fx.batch import Analyses, Batch, Follower, Linear
from graphprune.fx.registry import find_converter
from graphprune.fx.weights import alias_root, find_trainable, is_source
from graphprune.graph import Node, Value


class Conversion:
    """One import: converters call the methods, the importer drives it.

    Every stored tensor becomes one attribute of the module, however many nodes read it. It is a Parameter
    where a node reads it as an operand, and a buffer where it is a running statistic, a constant of a
    formula or not a float.
    """

    def __init__(self, analyses: Analyses, batch: Batch) -> None:
        self.graph = fx.Graph()
        self.attributes = Attributes(self.graph)
        self.nodes: dict[Value, fx.Node] = {}
        """What has been emitted so far."""
        self._analyses = analyses
        self._batch = batch
        self._inputs: dict[str, fx.Node] = {}
        self._sizes: dict[Linear, fx.Node] = {}
        self._follower = Follower(self.graph, self.attributes.module, batch)
        self._trainable = find_trainable(analyses)

    # -- emitting -------------------------------------------------------------------------------

    def emit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Call a torch, torch.nn.functional or operator function."""
        return self.graph.call_function(function, args, kwargs)

    def method(self, name: str, x: fx.Node, *args: Any, **kwargs: Any) -> fx.Node:
        """Call a method of a tensor."""
        return self.graph.call_method(name, (x, *args), kwargs)

    def buffer(self, array: np.ndarray, hint: str) -> fx.Node:
        """A constant that is not trained, of no ONNX tensor; ``hint`` names it."""
        return self.attributes.constant(array, hint)

    def to_float(self, x: fx.Node) -> fx.Node:
        """``x`` in the module's float type: float32, unless the module was moved to another."""
        return self.method("type_as", x, self.precision)

    @property
    def precision(self) -> fx.Node:
        """A float scalar that moves with the module: new tensors take their type and device from it."""
        return self.attributes.precision

    @property
    def training(self) -> fx.Node:
        """The module's ``training`` flag, read when it runs."""
        return self.attributes.training

    # -- batch size -----------------------------------------------------------------------------

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the file declares; None where it is dynamic."""
        return self._batch.fixed

    def size(self, linear: Linear) -> int | fx.Node:
        """``a * B + b`` for ``(a, b)``, B the batch size when the module runs; a plain number where a is 0."""
        slope, offset = linear
        if slope == 0:
            return offset
        if linear not in self._sizes:
            if linear == (1, 0):
                name, axis = next(iter(self._batch.axes.items()))
                size = self.method("size", self._inputs[name], axis)
            elif offset:
                size = self.emit(operator.add, self.size((slope, 0)), offset)
            else:
                size = self.emit(operator.mul, self.size((1, 0)), slope)
            self._sizes[linear] = size
        return self._sizes[linear]

    def measured_sizes(self, x: fx.Node) -> list[Linear] | None:
        """The axes of ``x`` as ``(a, b)``, found by running the module so far on meta tensors; None: unknown."""
        return self._follower.sizes(x)

    # -- constants ------------------------------------------------------------------------------

    def shape(self, node: Node, index: int = 0) -> tuple[int, ...]:
        """The analysed shape of input ``index``. Raises ConversionError where it is not known."""
        value = node.input(index)
        if value is None or value.shape is None:
            raise self.refuse(node, f"the shape of its input {index} is not known; give --input-shape")
        return value.shape

    def dtype(self, node: Node, index: int) -> str:
        """numpy's name of the type of input ``index`` in the file; "" where it is absent or not known."""
        value = node.input(index)
        return "" if value is None else value.dtype

    def is_integer(self, node: Node, index: int) -> bool:
        """Whether input ``index`` is known to hold integers (or booleans)."""
        return torch_dtype(self.dtype(node, index)) not in (torch.float32, None)

    def is_literal(self, node: Node, index: int) -> bool:
        """Whether input ``index`` is absent or a constant that no batch size changes."""
        value = node.input(index)
        return value is None or self._analyses.is_fixed(value)

    def literal(self, node: Node, index: int) -> np.ndarray | None:
        """The data of a constant input, None where it is absent.

        Raises ConversionError where it is not constant.
        """
        value = node.input(index)
        if value is None:
            return None
        if not self._analyses.is_fixed(value):
            raise self.refuse(node, f"input {index} ({value.name!r}) must be a constant")
        return self._array(node, value)

    def ints(self, node: Node, index: int) -> list[int | fx.Node] | None:
        """The elements of an integer input in row-major order; those that follow the batch size are fx nodes.

        None where the input is absent. Raises ConversionError where it depends on data.
        """
        value = node.input(index)
        if value is None:
            return None
        if self._analyses.is_fixed(value):
            return [int(i) for i in self._array(node, value).reshape(-1)]
        linear = self._analyses.linear(value)
        if linear is None:
            raise self.refuse(node, f"input {index} ({value.name!r}) depends on the data: make it a constant")
        return [self.size((int(a), int(b))) for a, b in zip(*(x.reshape(-1) for x in linear), strict=True)]

    def stat(self, node: Node, index: int) -> fx.Node:
        """Input ``index`` as a buffer that the node itself updates while training (running statistics).

        Raises ConversionError where it is absent or not constant.
        """
        value = node.input(index)
        if value is None or not self._analyses.is_fixed(value):
            raise self.refuse(node, f"input {index} must be a stored tensor")
        source = alias_root(value)
        return self.attributes.statistic(source, self._array(node, source))

    def operand(self, node: Node, index: int) -> fx.Node | None:
        """Input ``index`` as a tensor: for a position that is a literal in most models, but not in this one."""
        value = node.input(index)
        return None if value is None else self.tensor(value)

    def refuse(self, node: Node, why: str) -> ConversionError:
        """The error to raise for a node that cannot be converted."""
        return ConversionError(f"node {node.name!r} ({node.op}) cannot be converted to PyTorch: {why}")

    def _array(self, node: Node, value: Value) -> np.ndarray:
        try:
            return constant_array(alias_root(value))
        except ValueError as error:
            raise self.refuse(node, str(error)) from error

    # -- the importer's side --------------------------------------------------------------------

    def input(self, value: Value) -> None:
        """Emit the placeholder of a graph input."""
        dtype = torch_dtype(value.dtype)
        if dtype is None:
            kind = value.dtype or "what is no tensor"
            raise ConversionError(f"input {value.name!r}: PyTorch cannot compute in {kind}")
        node = self.graph.placeholder(self.attributes.fresh(value.name))
        self._inputs[value.name] = node
        self._follower.start(node, value, dtype)
        self.nodes[value] = node
        if dtype == torch.float32 and value.dtype != "float32":
            self.nodes[value] = self.to_float(node)

    def tensor(self, value: Value) -> fx.Node:
        """The fx node of ``value``; emits what it is made of where that has not been done."""
        if value not in self.nodes:
            self.nodes[value] = self._stored(value) or self._sizes_tensor(value) or self._convert(value)
        return self.nodes[value]

    def is_settled(self, value: Value) -> bool:
        """Whether ``value`` is had without what its producer reads: a constant, or sizes of the batch."""
        if self._analyses.is_fixed(value):
            return value not in self._trainable or is_source(value)
        return self._analyses.linear(value) is not None

    def convert(self, node: Node) -> None:
        """Emit ``node``. Raises ConversionError, naming it, where that is impossible."""
        entry = find_converter(node.op)
        if entry is None:
            raise self.refuse(node, "there is no converter for this operator")
        operands = [
            None if value is None or i in entry.literals else self.tensor(value)
            for i, value in enumerate(node.inputs)
        ]
        try:
            result = entry.function(self, node, *operands)
        except (
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # what attributes and inputs that do not fit raise
            what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise self.refuse(node, f"it contradicts its operator ({what})") from error
        outputs = [result] if isinstance(result, fx.Node) else result
        for value, out in zip(node.outputs, outputs, strict=False):
            if out is not None and value.name:
                self.nodes.setdefault(value, out)

    def _convert(self, value: Value) -> fx.Node:
        if value.producer is None:
            raise ConversionError(f"{value.name!r} has no data")
        self.convert(value.producer)
        if value not in self.nodes:
            raise self.refuse(value.producer, f"its output {value.name!r} is not supported")
        return self.nodes[value]

    def _stored(self, value: Value) -> fx.Node | None:
        if not self._analyses.is_fixed(value) or not self.is_settled(value):
            return None
        try:
            array = constant_array(value)
        except ValueError as error:
            raise ConversionError(str(error)) from error
        if is_source(value):
            return self.attributes.stored(value, array, trained=value in self._trainable)
        return self.buffer(array, value.name)

    def _sizes_tensor(self, value: Value) -> fx.Node | None:
        """A small integer tensor made of the batch size, on the module's device."""
        linear = None if self._analyses.is_fixed(value) else self._analyses.linear(value)
        if linear is None or linear[0].ndim > 1:
            return None
        sizes = [self.size((int(a), int(b))) for a, b in zip(*(x.reshape(-1) for x in linear), strict=True)]
        content = sizes if linear[0].ndim else sizes[0]
        return self.method("new_tensor", self.precision, content, dtype=torch_dtype(value.dtype))
