"""What a converter sees: the ONNX graph under construction, and what is known about the traced tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import tensor_adapters
from torch import fx

from graphprune.adding import free_name
from graphprune.errors import ConversionError

Size = int | fx.Node
"""A size as the trace has it: a number, or the node that computes it from the batch."""

_SYMBOLIC: dict[Callable[..., Any], str] = {
    operator.add: "Add",
    operator.sub: "Sub",
    operator.mul: "Mul",
    operator.floordiv: "Div",
}


def hint(size: int | torch.SymInt) -> int:
    """A size as a number: what it was for the example inputs, where it follows the batch."""
    return size if isinstance(size, int) else int(size.node.hint)


def element_type(dtype: torch.dtype) -> ir.DataType:
    """The ONNX element type of a tensor type. Raises ConversionError where there is none."""
    try:
        return tensor_adapters.from_torch_dtype(dtype)
    except (KeyError, TypeError) as error:
        raise ConversionError(f"tensors of type {dtype} cannot be pruned: ONNX has no such type") from error


class Conversion:
    """One conversion: converters call the methods, ``convert`` drives it.

    Every value that an fx node returns is called like that node, every value inside of it ``node.what``.
    """

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.values: dict[fx.Node, Any] = {}
        """fx node -> its ONNX value (a list for several outputs)."""
        self.current: fx.Node
        """The fx node that is being converted."""
        self._taken: set[str] = set()
        self._fakes: dict[ir.Value, torch.Tensor] = {}
        self._named: set[ir.Value] = set()
        self._sizes: dict[fx.Node, ir.Value] = {}

    # -- emitting -------------------------------------------------------------------------------

    def emit(self, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """One ONNX node with one output."""
        return self.emit_many(op, inputs, 1, **attributes)[0]

    def emit_many(
        self, op: str, inputs: Sequence[ir.Value | None], count: int, **attributes: Any
    ) -> list[ir.Value]:
        """One ONNX node. Attributes that are None are left out."""
        given = {k: v for k, v in attributes.items() if v is not None}
        name = self._free(f"{self.current.name}.{op}")
        node = ir.Node("", op, inputs, ir.convenience.convert_attributes(given), num_outputs=count, name=name)
        for index, value in enumerate(node.outputs):
            value.name = self._free(name if count == 1 else f"{name}.{index}")
        self.nodes.append(node)
        return list(node.outputs)

    def constant(self, data: Any, what: str, dtype: ir.DataType | torch.dtype | None = None) -> ir.Value:
        """A literal of the current node as a Constant node called ``node.what``."""
        kind = element_type(dtype) if isinstance(dtype, torch.dtype) else dtype
        array = np.asarray(data) if kind is None else np.asarray(data).astype(kind.numpy())
        name = self._free(f"{self.current.name}.{what}")
        tensor = ir.Tensor(array, dtype=kind, name=name)
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=name)
        value = node.outputs[0]
        value.name, value.type, value.shape = name, ir.TensorType(tensor.dtype), ir.Shape(array.shape)
        self.nodes.append(node)
        return value

    def ints(self, numbers: Sequence[int], what: str) -> ir.Value:
        """A literal int64 vector of the current node."""
        return self.constant(np.array(list(numbers), np.int64), what)

    def sizes(self, sizes: Sequence[Size], what: str) -> ir.Value:
        """Sizes as an int64 vector; those that follow the batch are computed by the graph."""
        if all(isinstance(s, int) for s in sizes):
            return self.ints([s for s in sizes if isinstance(s, int)], what)
        parts, run = [], list[int]()
        for size in sizes:
            if isinstance(size, int):
                run.append(size)
                continue
            if run:
                parts.append(self.ints(run, what))
                run = []
            parts.append(self.size(size))
        if run:
            parts.append(self.ints(run, what))
        return parts[0] if len(parts) == 1 else self.emit("Concat", *parts, axis=0)

    def size(self, node: fx.Node) -> ir.Value:
        """A size that follows the batch, as an int64 vector of one element. Raises ConversionError."""
        if node not in self._sizes:
            self._sizes[node] = self._size(node)
        return self._sizes[node]

    def _size(self, node: fx.Node) -> ir.Value:
        if node.target is torch.ops.aten.sym_size.int:
            source, axis = node.args
            value = self.values[source] if isinstance(source, fx.Node) else None
            if isinstance(axis, int) and isinstance(value, ir.Value):
                return self.emit("Shape", value, start=axis, end=axis + 1)
        op = _SYMBOLIC.get(node.target) if callable(node.target) else None
        if op is None or len(node.args) != 2:
            raise self.refuse(f"the size {node.name!r} is computed by {node.target}")
        operands = [self.size(a) if isinstance(a, fx.Node) else self._number(a) for a in node.args]
        return self.emit(op, *operands)

    def _number(self, argument: Any) -> ir.Value:
        return self.ints([int(argument)], "size")

    # -- operands -------------------------------------------------------------------------------

    def number(self, value: float, dtype: torch.dtype, what: str = "value") -> ir.Value:
        """A scalar literal of a tensor type."""
        return self.constant(np.float64(value) if dtype.is_floating_point else value, what, dtype)

    def operand(self, x: ir.Value | float, dtype: torch.dtype, what: str = "other") -> ir.Value:
        """A tensor or a number in the given type: cast where the tensor has another."""
        if not isinstance(x, ir.Value):
            return self.number(x, dtype, what)
        return self.cast(x, dtype)

    def cast(self, x: ir.Value, dtype: torch.dtype) -> ir.Value:
        """``x`` in the given type."""
        if self.fake(x).dtype == dtype:
            return x
        y = self.emit("Cast", x, to=int(element_type(dtype)))
        self._fakes[y] = self.fake(x).to(dtype)
        return y

    # -- what is known --------------------------------------------------------------------------

    def fake(self, x: ir.Value) -> torch.Tensor:
        """The traced tensor without data: its sizes and type. For values of fx nodes."""
        return self._fakes[x]

    def shape(self, x: ir.Value) -> list[int]:
        """Sizes of ``x`` for the example inputs."""
        return [hint(d) for d in self._fakes[x].shape]

    def rank(self, x: ir.Value) -> int:
        """Number of axes."""
        return self._fakes[x].ndim

    def axis(self, x: ir.Value, dim: int) -> int:
        """A dimension counted from the front."""
        return dim % max(self.rank(x), 1)

    def static(self, x: ir.Value, dim: int) -> int:
        """A size that must not follow the batch. Raises ConversionError where it does."""
        size = self._fakes[x].shape[dim]
        if not isinstance(size, int):
            raise self.refuse(f"the size of axis {dim} must not depend on the batch size")
        return size

    @property
    def out(self) -> torch.Tensor:
        """The current node's output, without data."""
        value = self.current.meta["val"]
        return value if isinstance(value, torch.Tensor) else value[0]

    def refuse(self, why: str) -> ConversionError:
        """The error to raise for a node that cannot be converted."""
        return ConversionError(f"node {self.current.name!r} ({self.current.target}) cannot be pruned: {why}")

    # -- bookkeeping ----------------------------------------------------------------------------

    def settle(self, node: fx.Node, value: ir.Value, fake: torch.Tensor) -> None:
        """``value`` is what ``node`` returns: give it the node's name and sizes, unless another has named it."""
        if value in self._named:
            return
        self._named.add(value)
        self._fakes[value] = fake
        value.name = self._free(node.name)
        value.type = ir.TensorType(element_type(fake.dtype))
        value.shape = ir.Shape([d if isinstance(d, int) else str(d) for d in fake.shape])
        if (producer := value.producer()) is not None:
            producer.name = value.name

    def store(self, name: str, tensor: torch.Tensor, fake: torch.Tensor) -> ir.Value:
        """A parameter or buffer as an initializer under its own name."""
        data = tensor_adapters.TorchTensor(tensor.detach(), name=self._free(name))
        value = ir.Value(
            name=data.name, type=ir.TensorType(data.dtype), shape=ir.Shape(tensor.shape), const_value=data
        )
        self._named.add(value)
        self._fakes[value] = fake
        return value

    def _free(self, name: str) -> str:
        return free_name(name, self._taken)
