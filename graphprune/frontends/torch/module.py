"""A traced graph as a module that trains: ``train()`` and ``eval()`` reach batch normalisation and dropout."""

from __future__ import annotations

import operator as builtin
from collections.abc import Collection

import torch
from torch import fx, nn

from graphprune.frontends.torch.arguments import bound, schema_of, set_argument
from graphprune.frontends.torch.export import attribute, owner_of

_FLAGS = ("training", "train")


def as_module(traced: nn.Module, graph: fx.Graph, persistent: Collection[str]) -> fx.GraphModule:
    """A GraphModule over the tensors of ``traced`` (not copied), named like it, in evaluation mode.

    ``persistent``: the buffers that belong into its state_dict.

    torch.export freezes the mode into arguments of the graph and refuses train() and eval(). Here those arguments
    read the module's ``training`` flag when it runs, so both work as on any module.
    """
    _free_flags(graph)
    root = nn.Module()
    root.training = False
    for name, parameter in traced.named_parameters(remove_duplicate=False):
        _attach(root, name).register_parameter(name.rsplit(".", 1)[-1], parameter)
    for name, buffer in traced.named_buffers(remove_duplicate=False):
        _attach(root, name).register_buffer(name.rsplit(".", 1)[-1], buffer, persistent=name in persistent)
    for node in graph.nodes:
        if node.op == "get_attr" and node.target != "training" and not _has(root, str(node.target)):
            constant = attribute(traced, str(node.target))  # a plain attribute of the trace
            _attach(root, str(node.target)).register_buffer(
                str(node.target).rsplit(".", 1)[-1], constant, persistent=False
            )
    module = fx.GraphModule(root, graph)
    for name, child in root.named_children():  # GraphModule copies only what the graph reads
        setattr(module, name, child)
    for name, parameter in root.named_parameters(recurse=False):
        module.register_parameter(name, parameter)
    for name, buffer in root.named_buffers(recurse=False):
        module.register_buffer(name, buffer, persistent=name in persistent)
    return module.eval()


def _attach(root: nn.Module, path: str) -> nn.Module:
    """The sub-module that holds a dotted attribute."""
    return owner_of(root, path.rpartition(".")[0])


def _has(root: nn.Module, path: str) -> bool:
    try:
        attribute(root, path)
    except AttributeError:
        return False
    return True


def _free_flags(graph: fx.Graph) -> None:
    """Arguments that say ``training`` read the module's flag."""
    flag: fx.Node | None = None
    for node in list(graph.nodes):
        for name in _flags(node):
            if flag is None:
                with graph.inserting_before(next(iter(graph.nodes))):
                    # create_node, because Graph.get_attr warns about attributes that it does not know
                    flag = graph.create_node("get_attr", "training", name="training_flag")
            set_argument(node, name, flag)


def _flags(node: fx.Node) -> list[str]:
    """Names of the arguments that hold the mode."""
    schema = schema_of(node)
    if node.op != "call_function" or schema is None:
        return []
    found = [a.name for a in schema.arguments if a.name in _FLAGS and str(a.type) == "bool"]
    given = bound(node) if schema.name == "aten::instance_norm" else {}
    if given.get("running_mean") is not None:
        found.append("use_input_stats")
    # in a trace for evaluation True does not follow the mode: it was written so (batch_norm that standardises a weight)
    return [name for name in found if bound(node)[name] is False]


def scaled(graph: fx.Graph, size: fx.Node, new: int, old: int) -> fx.Node:
    """``size`` times new over old, where it is the batch size times a count that pruning changed."""
    product = graph.call_function(builtin.mul, (size, new))
    return graph.call_function(builtin.floordiv, (product, old))


def get_tensor(graph: fx.Graph, module: nn.Module, name: str, tensor: torch.Tensor) -> fx.Node:
    """A tensor that the original did not have, as an attribute of ``module`` and the node that reads it."""
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor, persistent=False)
    return graph.create_node("get_attr", name, name=name)
