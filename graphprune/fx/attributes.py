"""The module's tensors: ONNX arrays as Parameters and buffers under valid, unique attribute names."""

from __future__ import annotations

import keyword
import re

import numpy as np
import torch
from torch import fx, nn

from graphprune.errors import ConversionError
from graphprune.graph import Value

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float32,
    "bfloat16": torch.float32,
    "float64": torch.float32,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint16": torch.int32,
    "uint32": torch.int64,
    "uint64": torch.int64,
}

_RESERVED = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) | {"training", "precision"}
"""What a GraphModule's attributes are called already, and two of our own."""


def torch_dtype(name: str) -> torch.dtype | None:
    """The type in which the module computes what ONNX declares as ``name``: float32 for every float.

    Unsigned types that torch has no arithmetic for become a wider signed one. None for types without
    arithmetic (strings, complex, 4-bit and 8-bit floats).
    """
    return _DTYPES.get(name)


def to_tensor(array: np.ndarray, name: str) -> torch.Tensor:
    """A copy of ``array`` in the type of ``torch_dtype``. Raises ConversionError for other types."""
    dtype = torch_dtype(str(array.dtype))
    if dtype is None:
        raise ConversionError(f"tensor {name!r}: PyTorch cannot compute in {array.dtype}")
    # ml_dtypes' bfloat16 is unknown to torch, and so are numpy's big-endian arrays
    return torch.from_numpy(np.array(array, dtype=str(dtype).removeprefix("torch."), order="C"))


class Attributes:
    """Registers tensors on a plain module, and emits the get_attr nodes that read them."""

    def __init__(self, graph: fx.Graph) -> None:
        self.module = nn.Module()
        self.tensors: dict[str, str] = {}
        """Attribute -> name of the ONNX tensor that it holds."""
        self._graph = graph
        self._names = set(_RESERVED)
        self._stored: dict[Value, str] = {}
        self._trained: set[Value] = set()
        self._statistics: dict[Value, list[fx.Node]] = {}
        self._reads: dict[str, fx.Node] = {}

    def fresh(self, hint: str) -> str:
        """A valid Python name like ``hint`` that is not taken."""
        name = re.sub(r"\W", "_", hint, flags=re.ASCII)
        if not name or name[0].isdigit() or name.startswith("__") or keyword.iskeyword(name):
            name = f"t_{name}"
        stem, number = name, 1
        while name in self._names:
            name, number = f"{stem}_{number}", number + 1
        self._names.add(name)
        return name

    @property
    def training(self) -> fx.Node:
        """The module's ``training`` flag."""
        return self._read("training")

    @property
    def precision(self) -> fx.Node:
        """A float scalar that moves with the module."""
        if "precision" not in self._reads:
            self.module.register_buffer("precision", torch.zeros(()))
        return self._read("precision")

    def constant(self, array: np.ndarray, hint: str) -> fx.Node:
        """A buffer of no ONNX tensor."""
        name = self.fresh(hint)
        self.module.register_buffer(name, to_tensor(array, hint))
        return self._read(name)

    def stored(self, value: Value, array: np.ndarray, *, trained: bool) -> fx.Node:
        """The tensor of ``value`` as an operand."""
        if trained:
            self._trained.add(value)
        return self._read(self._register(value, array))

    def statistic(self, value: Value, array: np.ndarray) -> fx.Node:
        """The tensor of ``value`` as a running statistic, which the reading node updates in place."""
        node = self._get(self._register(value, array))
        self._statistics.setdefault(value, []).append(node)
        return node

    def finish(self) -> dict[Value, fx.Node]:
        """Turn what is trained into Parameters, and return the node that reads each ONNX tensor.

        A statistic that something else reads as well (exporters merge equal tensors) is one number for
        all of them in the file, so it must not move: its nodes update a copy.
        """
        for value, nodes in self._statistics.items():
            self._trained.discard(value)
            if len(nodes) == 1 and self._stored[value] not in self._reads:
                continue
            for node in nodes:
                with self._graph.inserting_after(node):
                    copy = self._graph.call_method("clone", (node,))
                node.replace_all_uses_with(copy)
                copy.args = (node,)  # which has just been replaced like the others
        for value in self._trained:
            name = self._stored[value]
            tensor = self.module.get_buffer(name)
            delattr(self.module, name)
            self.module.register_parameter(name, nn.Parameter(tensor))
        readers = {value: nodes[0] for value, nodes in self._statistics.items()}
        return readers | {v: self._reads[n] for v, n in self._stored.items() if n in self._reads}

    def _register(self, value: Value, array: np.ndarray) -> str:
        if value not in self._stored:
            name = self.fresh(value.name)
            self.module.register_buffer(name, to_tensor(array, value.name))
            self._stored[value] = name
            self.tensors[name] = value.name
        return self._stored[value]

    def _read(self, name: str) -> fx.Node:
        if name not in self._reads:
            self._reads[name] = self._get(name)
        return self._reads[name]

    def _get(self, name: str) -> fx.Node:
        # create_node, because Graph.get_attr warns about attributes of a module that it does not know yet
        return self._graph.create_node("get_attr", name)
