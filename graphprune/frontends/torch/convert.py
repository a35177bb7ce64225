"""A traced GraphModule -> the ONNX model that the engine reads, with the names that lead back."""

from __future__ import annotations

import operator as builtin
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import fx

from graphprune.errors import ConversionError
from graphprune.frontends.torch import (  # noqa: F401 - importing the tables fills the registry
    activations,
    arithmetic,
    attention,
    convolution,
    creation,
    indexing,
    linear,
    movement,
    normalization,
    pooling,
    recurrent,
    reduction,
)
from graphprune.frontends.torch.arguments import bound, operator_name
from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.export import attribute
from graphprune.frontends.torch.folding import Folder, RepeatedFolder
from graphprune.frontends.torch.inplace import Aliases
from graphprune.frontends.torch.registry import find_converter

OPSET = 23
IR_VERSION = 11


@dataclass(frozen=True)
class Converted:
    """A traced module and its ONNX model.

    ``values``: fx node -> the name of its ONNX value, for nodes that return one tensor. ``parts``: fx node -> the names
    of its ONNX values, for nodes that return several.
    ``tensors``: ONNX initializer -> the parameters and buffers that it stands for (several where they are one).
    """

    module: fx.GraphModule
    model: ir.Model
    values: dict[str, str]
    parts: dict[str, list[str]]
    tensors: dict[str, list[str]]


def convert(module: fx.GraphModule) -> Converted:
    """Translate a trace (see ``export.trace``), which stays as it is.

    Initializers are the parameters and buffers under their own names, in torch's layout. Every fx node's value
    has the node's name; literals are Constant nodes called ``node.argument``.

    Raises ConversionError, naming node and operator, for what has no counterpart.
    """
    return _Walk(module).run()


class _Walk:
    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.c = Conversion()
        self.inputs: list[ir.Value] = []
        self.initializers: dict[int, ir.Value] = {}
        self.tensors: dict[str, list[str]] = {}
        self.aliases = Aliases(module.graph)
        self.folder, self.repeated = Folder(module), RepeatedFolder(module)
        self.own: dict[fx.Node, Any] = {}
        """What nodes returned that an operator in place has changed since."""
        self.paths: dict[int, list[str]] = {}
        for path, tensor in (*module.named_parameters(remove_duplicate=False), *module.named_buffers()):
            self.paths.setdefault(id(tensor), []).append(path)

    def run(self) -> Converted:
        needed = _needed(self.module.graph)
        self._check(needed)
        outputs: list[ir.Value] = []
        for node in self.module.graph.nodes:
            self.c.current = node
            if node.op == "placeholder":
                self._input(node)
            elif node not in needed:
                continue
            elif node.op == "get_attr":
                self._attribute(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                outputs = self._outputs(node)
        graph = ir.Graph(
            self.inputs,
            outputs,
            nodes=self.c.nodes,
            initializers=list(self.initializers.values()),
            opset_imports={"": OPSET},
            name="model",
        )
        returned = self.c.values | self.own
        names = {n.name: v.name for n, v in returned.items() if isinstance(v, ir.Value) and v.name}
        parts = {n.name: [x.name or "" for x in v] for n, v in self.c.values.items() if isinstance(v, list)}
        return Converted(self.module, ir.Model(graph, ir_version=IR_VERSION), names, parts, self.tensors)

    def _check(self, needed: set[fx.Node]) -> None:
        """Raises ConversionError that names every operator without a converter."""
        missing = [n for n in self.module.graph.nodes if n in needed and not self._known(n)]
        if missing:
            others = sorted({operator_name(n) for n in missing} - {operator_name(missing[0])})
            also = f" (nor {', '.join(others)})" if others else ""
            raise ConversionError(
                f"node {missing[0].name!r}: operator {operator_name(missing[0])}{also} cannot be pruned: "
                "there is no rule for it; rewrite it with others, or export the module to ONNX"
            )

    def _known(self, node: fx.Node) -> bool:
        if node.op != "call_function" or node.target is builtin.getitem or not _makes_tensors(node):
            return node.op not in ("call_module", "call_method")
        known = find_converter(operator_name(node)) is not None
        return known or self.folder.value(node) is not None or self.repeated.value(node) is not None

    # -- nodes ----------------------------------------------------------------------------------

    def _input(self, node: fx.Node) -> None:
        fake = node.meta.get("val")
        if not isinstance(fake, torch.Tensor):
            return
        value = ir.Value()
        self.c.settle(node, value, fake)
        self.c.values[node] = value
        self.inputs.append(value)

    def _attribute(self, node: fx.Node) -> None:
        name = str(node.target)
        tensor = attribute(self.module, name)
        if not isinstance(tensor, torch.Tensor):
            raise ConversionError(f"attribute {name!r} is not a tensor, so the module cannot be pruned")
        key = id(tensor)
        if key not in self.initializers:
            self.initializers[key] = self.c.store(name, tensor, node.meta.get("val", tensor))
            self.tensors[self.initializers[key].name or ""] = self.paths.get(key, [name])
        self.c.values[node] = self.initializers[key]

    def _call(self, node: fx.Node) -> None:
        if node.target is builtin.getitem:
            source, index = node.args
            assert isinstance(source, fx.Node)
            if isinstance(self.c.values.get(source), list):
                self.c.values[node] = self.c.values[source][index]
            return
        if not _makes_tensors(node):
            return
        converter = find_converter(operator_name(node))
        try:
            if converter is None:
                raise self.c.refuse("there is no rule for it")
            self._convert(node, converter)
        except ConversionError:
            value = self._folded(node)
            if value is None:
                raise
            self.c.settle(node, value, node.meta["val"])
            self.c.values[node] = value

    def _folded(self, node: fx.Node) -> ir.Value | None:
        """What depends on nothing as a constant, repeated for every sample; None for everything else."""
        data = self.folder.value(node)
        repeated = not isinstance(data, torch.Tensor)
        if repeated:
            data = self.repeated.value(node)
        if not isinstance(data, torch.Tensor):
            return None
        value = self.c.constant(data.detach().cpu().numpy(), "data", data.dtype)
        if not repeated:
            return value
        batches = {str(v.shape[0]): v for v in self.inputs if v.shape}
        sizes = [None if isinstance(d, int) else batches.get(str(d)) for d in node.meta["val"].shape]
        parts = [
            self.c.ints([1], f"axis{i}") if s is None else self.c.emit("Shape", s, start=0, end=1)
            for i, s in enumerate(sizes)
        ]
        if all(s is None for s in sizes):
            return None
        return self.c.emit("Expand", value, self.c.emit("Concat", *parts, axis=0))

    def _convert(self, node: fx.Node, converter: Callable[..., Any]) -> None:
        try:
            result = converter(self.c, **{k: self._resolved(v) for k, v in bound(node).items()})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise self.c.refuse(f"its arguments are of a form that is not known ({error})") from error
        fakes = node.meta["val"]
        if isinstance(result, ir.Value):
            if isinstance(fakes, torch.Tensor):
                self.c.settle(node, result, fakes)
            self.c.values[node] = result
        else:
            self.c.values[node] = list(result)
            readers = {u.args[1]: u for u in node.users if u.target is builtin.getitem}
            for index, (value, fake) in enumerate(zip(result, fakes, strict=False)):
                self.c.settle(readers.get(index, node), value, fake)
        self._mutated(node)

    def _mutated(self, node: fx.Node) -> None:
        """After an in-place operator its first operand is the result."""
        for other in self.aliases.renewed(node):
            if other in self.c.values:
                self.own.setdefault(other, self.c.values[other])
                self.c.values[other] = self.c.values[node]

    def _resolved(self, argument: Any) -> Any:
        """Tensors as ONNX values; sizes stay numbers, or the nodes that compute them."""
        if isinstance(argument, fx.Node):
            return self.c.values.get(argument, argument)
        if isinstance(argument, list | tuple):
            return [self._resolved(a) for a in argument]
        return argument

    def _outputs(self, node: fx.Node) -> list[ir.Value]:
        found: list[ir.Value] = []
        for result in node.all_input_nodes:
            value = self.c.values.get(result)
            if not isinstance(value, ir.Value):
                continue
            if value in found or value in self.inputs or value.producer() is None:
                copy = self.c.emit("Identity", value)
                copy.type, copy.shape = value.type, value.shape
                value = copy
            found.append(value)
        if not found:
            raise ConversionError("the module returns no tensor, so there is nothing to keep while pruning")
        return found


def _makes_tensors(node: fx.Node) -> bool:
    value = node.meta.get("val")
    first = value[0] if isinstance(value, Sequence) and value else value
    return isinstance(first, torch.Tensor)


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that the outputs are computed from, and in-place operators on them."""
    needed: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        mutable = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        if node.op == "output" or node in needed or mutable:
            needed.add(node)
            needed.update(node.all_input_nodes)
    return needed
