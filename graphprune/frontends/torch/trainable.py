"""The traced module itself as what a search trains: its dropout, its BatchNorm, its names."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import torch
from torch import fx, nn

from graphprune.errors import ConversionError
from graphprune.feeds import input_specs
from graphprune.frontends.torch.arguments import schema_of
from graphprune.frontends.torch.convert import Converted
from graphprune.frontends.torch.export import attribute
from graphprune.frontends.torch.inplace import Aliases
from graphprune.frontends.torch.module import as_module
from graphprune.fx.batch import analyse
from graphprune.fx.importer import Imported


def trainable(converted: Converted, input_shapes: Mapping[str, tuple[int, ...]] | None) -> Imported:
    """A copy of the traced module on the CPU, with the names that lead to its ONNX model.

    Its forward takes the tensors of the example in order, and returns a tensor or a tuple; the operators are the
    user's own, so that ``train()`` brings back what the trace had switched off. In float32 only: masks would
    raise the type of anything smaller.

    Raises ConversionError for what masks cannot be put into.
    """
    _check_types(converted.module)
    with warnings.catch_warnings():  # torch's own pytree classes, on being copied
        warnings.simplefilter("ignore", FutureWarning)
        traced = copy.deepcopy(converted.module)
    _without_changes_in_place(traced.graph)
    _read_once(traced)
    _plain_signature(traced.graph)
    module = as_module(traced, traced.graph, set(converted.module.state_dict())).cpu()
    analyses, batch = analyse(converted.model, input_shapes, measure=False)
    if any(v.shape is None for n in analyses.graph.nodes for v in n.outputs):
        analyses, batch = analyse(converted.model, input_shapes, measure=True)
    graph = analyses.graph
    sizes = {v.name: v.shape for v in graph.inputs if v.shape is not None}
    kept = {n.name for n in module.graph.nodes}
    names = {path: name for name, paths in converted.tensors.items() for path in paths}
    stored = (*module.named_parameters(), *module.named_buffers())  # each tensor once
    return Imported(
        module,
        graph,
        {path: names[path] for path, _ in stored if path in names},
        {value: node for node, value in reversed(converted.values.items()) if node in kept},
        batch,
        input_specs(converted.model, graph, sizes)[-1],
    )


def _check_types(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ConversionError(f"parameter {name!r} is {parameter.dtype}: masks are trained in float32")


def _without_changes_in_place(graph: fx.Graph) -> None:
    """Operators that change a tensor return a new one, which everybody reads from then on."""
    aliases = Aliases(graph)
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        schema = schema_of(node)
        if schema is None or not schema.is_mutable:
            continue
        name = schema.name.removeprefix("aten::")
        packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
        overload = getattr(packet, schema.overload_name or "default", None)
        if not name.endswith("_") or overload is None:
            raise ConversionError(f"node {node.name!r} ({node.target}) changes a tensor in place")
        node.target = overload
        later = [n for n in graph.nodes if order[n] > order[node]]
        for other in aliases.renewed(node):
            for reader in later:
                reader.replace_input_with(other, node)


def _read_once(traced: fx.GraphModule) -> None:
    """One node for each stored tensor, whatever names it has."""
    first: dict[int, fx.Node] = {}
    for node in list(traced.graph.nodes):
        if node.op != "get_attr":
            continue
        kept = first.setdefault(id(attribute(traced, str(node.target))), node)
        if kept is not node:
            node.replace_all_uses_with(kept)
            traced.graph.erase_node(node)


def _plain_signature(graph: fx.Graph) -> None:
    """Tensors in, tensors out; arguments that are not tensors are as in the example."""
    for node in list(graph.nodes):
        if node.op == "placeholder" and not isinstance(node.meta.get("val"), torch.Tensor):
            if node.users:
                raise ConversionError(f"argument {node.name!r} is no tensor, and the module reads it")
            graph.erase_node(node)
        elif node.op == "output":
            found = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
            node.args = (found[0] if len(found) == 1 else tuple(found),)
    graph.set_codegen(fx.graph.CodeGen())
