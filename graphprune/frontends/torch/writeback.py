"""A pruned ONNX model -> a pruned copy of the traced module that it came from."""

from __future__ import annotations

import copy
import warnings
from functools import cached_property

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

from graphprune.errors import ConversionError
from graphprune.frontends.onnx import build_graph
from graphprune.frontends.torch.arguments import operator_name
from graphprune.frontends.torch.conversion import hint
from graphprune.frontends.torch.convert import Converted
from graphprune.frontends.torch.export import attribute
from graphprune.frontends.torch.literals import Shape, find_writer
from graphprune.frontends.torch.module import as_module, get_tensor, scaled
from graphprune.frontends.torch.selections import computed_again, is_weight, kept_positions
from graphprune.frontends.torch.tensors import data_of, like, stored_inputs
from graphprune.frontends.torch.views import drop_unread
from graphprune.graph import Graph
from graphprune.running import top_level_values


def write_back(converted: Converted, pruned: ir.Model) -> fx.GraphModule:
    """The traced module with the tensors, sizes and selections of ``pruned``; ``converted.module`` stays as it is.

    ``pruned`` is what surgery made of ``converted.model``. Parameters and buffers keep their names, types, devices
    and requires_grad. The result is in evaluation mode, trains (see ``as_module``) and is called like the original.

    Raises ConversionError where the change of an operator has no counterpart in its ATen call.
    """
    return _WriteBack(converted, pruned).run()


class _WriteBack:
    def __init__(self, converted: Converted, pruned: ir.Model) -> None:
        self.converted = converted
        self.before = top_level_values(converted.model.graph)
        self.after = top_level_values(pruned.graph)
        self.pruned = pruned
        with warnings.catch_warnings():  # torch's own pytree classes, on being copied
            warnings.simplefilter("ignore", FutureWarning)
            self.module = copy.deepcopy(converted.module)
        self.graph = self.module.graph
        self.nodes = {n.name: n for n in self.graph.nodes}
        self.original = {n.name: n for n in converted.module.graph.nodes}
        self.state = set(converted.module.state_dict())
        self.cut: set[str] = set()
        """Parameters and buffers that became smaller."""
        self.by_value = {value: self.nodes[name] for name, value in reversed(converted.values.items())}

    def run(self) -> fx.GraphModule:
        self._check_inner()
        self.graph.eliminate_dead_code()
        read = self._read()
        self._tensors()
        for node in list(self.graph.nodes):
            if node.op == "call_function":
                self._call(node)
        drop_unread(self.graph)
        for path in read - self._read():
            owner_path, _, name = path.rpartition(".")
            delattr(attribute(self.module, owner_path) if owner_path else self.module, name)
        for node in self.graph.nodes:
            if node.target is torch.ops.aten.view.default:  # whether strides allow it is known where it runs
                node.target = torch.ops.aten.reshape.default
        self.graph.lint()
        return as_module(self.module, self.graph, self.state)

    def _read(self) -> set[str]:
        """Attributes that the graph reads."""
        return {str(n.target) for n in self.graph.nodes if n.op == "get_attr" and n.users}

    # -- tensors --------------------------------------------------------------------------------

    def _tensors(self) -> None:
        for name, paths in self.converted.tensors.items():
            stored = self.after.get(name)
            if stored is None or stored.const_value is None:
                continue
            old = attribute(self.module, paths[0])
            new = like(np.asarray(stored.const_value.numpy()), old)
            if new.shape != old.shape:
                self.cut.update(paths)
            for path in paths:
                self._put(path, new)

    def _put(self, path: str, tensor: torch.Tensor) -> None:
        owner_path, _, name = path.rpartition(".")
        owner = attribute(self.module, owner_path) if owner_path else self.module
        if name in owner._parameters and isinstance(tensor, nn.Parameter):
            owner._parameters[name] = tensor
        elif name in owner._buffers:
            owner._buffers[name] = tensor
        else:
            setattr(owner, name, tensor)

    # -- calls ----------------------------------------------------------------------------------

    def _call(self, node: fx.Node) -> None:
        name = self.converted.values.get(node.name)
        if name is None:
            if node.name in self.converted.parts and self._parts_changed(node):
                self._write(node)
            return
        if name not in self.after or self.by_value[name] is not node:
            return  # read by nobody any more, or another name of the same tensor
        old, new = self.before[name].producer(), self.after[name].producer()
        if old is None:
            return
        if new is None or (old.op_type == "Constant" and self._shape(name, 0) != self._shape(name, 1)):
            self._store(node, name)
        elif new.name != old.name:
            self._select(node, new)
        else:
            self._write(node)

    def _write(self, node: fx.Node) -> None:
        write = find_writer(operator_name(node))
        if write is not None:
            with self.graph.inserting_before(node):
                write(self, node)

    def _select(self, node: fx.Node, gather: ir.Node) -> None:
        """A chain of movements became one selection."""
        data, index = gather.inputs
        source = None if data is None else self.by_value.get(data.name or "")
        if gather.op_type != "Gather" or source is None or index is None:
            raise self._refuse(node.name)
        with self.graph.inserting_before(node):
            positions = self.tensor(node, data_of(index), "indices")
            axis = gather.attributes["axis"].as_int()
            new = self.graph.call_function(torch.ops.aten.index_select.default, (source, axis, positions))
        new.meta = dict(node.meta)
        self._replace(node, new)

    def _store(self, node: fx.Node, name: str) -> None:
        """A constant that operators computed lost positions: it is computed as before and selected from.

        So parameters keep their names. Weights of layers, and what no parameter or buffer makes, are stored instead.
        """
        data = data_of(self.after[name])
        stored = [str(n.target) for n in stored_inputs(node)]
        kept = None
        named = any(path in self.state for path in stored)
        if named and not is_weight(self.original[node.name]) and not any(path in self.cut for path in stored):
            kept = kept_positions(self.converted.module, self.original[node.name], data)
        if kept is None:
            self._store_tensor(node, name, data, stored)
            return
        with self.graph.inserting_before(node):
            new = computed_again(self.graph, self.original[node.name])
            for axis, positions in kept.items():
                index = self.tensor(node, np.array(positions), "kept")
                new = self.graph.call_function(torch.ops.aten.index_select.default, (new, axis, index))
        new.meta = dict(node.meta)
        self._replace(node, new)

    def _store_tensor(self, node: fx.Node, name: str, data: np.ndarray, stored: list[str]) -> None:
        trained = any(attribute(self.module, path).requires_grad for path in stored)
        tensor = torch.from_numpy(np.array(data)).to(node.meta["val"].dtype)
        with self.graph.inserting_before(node):
            new = get_tensor(
                self.graph, self.module, self._free(name), nn.Parameter(tensor) if trained else tensor
            )
        new.meta = dict(node.meta)
        self._replace(node, new)

    def _replace(self, node: fx.Node, new: fx.Node) -> None:
        node.replace_all_uses_with(new)
        for value, owner in self.by_value.items():
            if owner is node:
                self.by_value[value] = new
        self.graph.erase_node(node)

    def _check_inner(self) -> None:
        """Inside of an ATen call nothing may have become another operator."""
        for name, value in self.before.items():
            old, found = value.producer(), self.after.get(name)
            if old is None or found is None or name in self.by_value or old.op_type == "Constant":
                continue
            new = found.producer()
            if new is None or new.name != old.name:
                raise self._refuse(name)

    def _refuse(self, name: str) -> ConversionError:
        return ConversionError(
            f"node {name!r}: what is left of it cannot be written as a PyTorch call; exclude its channels, or prune "
            "the ONNX export"
        )

    # -- Sizes ----------------------------------------------------------------------------------

    def shapes(self, node: fx.Node) -> tuple[Shape, Shape]:
        """Sizes of a node's value before and after."""
        if node.name not in self.converted.values:
            size = tuple(hint(d) for d in node.meta["val"].shape)
            return size, size
        name = self.converted.values[node.name]
        return self._shape(name, 0), self._shape(name, 1)

    def parts(self, node: fx.Node) -> tuple[list[Shape], list[Shape]]:
        """The same for a node that returns several."""
        names = self.converted.parts[node.name]
        return [self._shape(n, 0) for n in names], [self._shape(n, 1) for n in names]

    def constants(self, node: fx.Node, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A constant input before and after; empty where it is not constant."""
        name = self.converted.values[node.name]
        found = []
        for values, graph in ((self.before, self._graphs[0]), (self.after, self._graphs[1])):
            producer = values[name].producer()
            value = producer.inputs[index] if producer is not None and index < len(producer.inputs) else None
            known = None if value is None else graph.values[value.name or ""].known
            found.append(np.zeros(0) if known is None else known)
        return found[0], found[1]

    def inner(self, node: fx.Node, what: str, index: int) -> np.ndarray:
        """A constant input of the pruned ONNX node ``node.what``."""
        producer = self.after[f"{node.name}.{what}"].producer()
        value = None if producer is None else producer.inputs[index]
        assert value is not None
        return data_of(value)

    def attribute(self, node: fx.Node, name: str) -> int:
        """An integer attribute in the pruned model."""
        producer = self.after[self.converted.values[node.name]].producer()
        assert producer is not None
        return producer.attributes[name].as_int() if name in producer.attributes else 1

    def scaled(self, size: fx.Node, new: int, old: int) -> fx.Node:
        """A size that follows the batch, corrected."""
        return scaled(self.graph, size, new, old)

    def tensor(self, node: fx.Node, data: np.ndarray, what: str, instead: fx.Node | None = None) -> fx.Node:
        """A new buffer, or new data in one that only ``node`` reads."""
        if instead is not None and instead.op == "get_attr" and len(instead.users) == 1:
            self._put(str(instead.target), like(data, attribute(self.module, str(instead.target))))
            return instead
        value = node.meta["val"]
        device = (value if isinstance(value, torch.Tensor) else value[0]).device
        tensor = torch.from_numpy(np.array(data)).to(device)
        return get_tensor(self.graph, self.module, self._free(f"{node.name}_{what}"), tensor)

    @cached_property
    def _graphs(self) -> tuple[Graph, Graph]:
        """Both models with every size known."""
        shapes = {
            self.converted.values[n.name]: tuple(hint(d) for d in n.meta["val"].shape)
            for n in self.graph.nodes
            if n.op == "placeholder" and n.name in self.converted.values
        }
        return build_graph(self.converted.model, shapes), build_graph(self.pruned, shapes)

    def _shape(self, name: str, which: int) -> Shape:
        value = self._graphs[which].values.get(name)
        if value is None or value.shape is None:
            raise self._refuse(name)
        return value.shape

    def _parts_changed(self, node: fx.Node) -> bool:
        return all(n in self._graphs[1].values for n in self.converted.parts[node.name])

    def _free(self, name: str) -> str:
        taken = (
            set(dir(self.module)) | set(self.module._buffers) | set(self.module._parameters) | set(self.nodes)
        )
        found, number = name.replace(".", "_"), 1
        while found in taken:
            found, number = f"{name.replace('.', '_')}_{number}", number + 1
        return found
