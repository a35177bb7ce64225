"""ONNX model -> torch.fx.GraphModule, with the names that lead back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir
import torch
from torch import fx

from graphprune.errors import ConversionError
from graphprune.feeds import InputSpec, draw, input_specs
from graphprune.fx.attributes import to_tensor
from graphprune.fx.batch import Batch, analyse, resized
from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import find_converter
from graphprune.graph import Graph, Node, Value

AGREEMENT = 1e-4
"""Largest difference between samples of one batch and the samples alone, relative to the largest output."""


@dataclass(frozen=True)
class Imported:
    """A model as a PyTorch module.

    ``module``: forward(*inputs in graph order) -> a tensor, or a tuple for several outputs; eval mode.
    ``graph``: the analysis that it was made from, at a batch of 2 where the batch is dynamic.
    ``tensors``: attribute of the module (parameter or buffer) -> name of its ONNX tensor, one-to-one.
    ``nodes``: ONNX value -> fx node, for every value that exists in the module (a weight's get_attr node).
    ``batch``: the inputs' batch axes. ``specs``: how to draw inputs of the analysed sizes at random.
    """

    module: fx.GraphModule
    graph: Graph
    tensors: dict[str, str]
    nodes: dict[str, str]
    batch: Batch
    specs: list[InputSpec]


def import_model(model: ir.Model, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Imported:
    """Turn ``model`` (as ``graphprune.frontends.loading.load_model`` returns it) into an fx module.

    The module holds plain torch calls. Float tensors become Parameters (running statistics and constants
    of formulas: buffers), computed in float32 whatever type the file stores. A dynamic batch axis stays
    dynamic; a fixed one is freed where its operators allow (see ``accepts_batches``). Other dynamic axes are
    taken at the sizes of ``input_shapes``, or guessed, wherever an operator needs a number.

    Raises ConversionError, naming node and operator, for what has no counterpart.
    """
    analyses, batch = analyse(model, input_shapes, measure=False)
    conversion = Conversion(analyses, batch)
    needed = _needed(conversion, analyses.graph)
    if any(v.shape is None for v in needed):  # worth a run of the model, now that every operator is known
        analyses, batch = analyse(model, input_shapes, measure=True)
        conversion = Conversion(analyses, batch)
        needed = _needed(conversion, analyses.graph)
    graph = analyses.graph
    for value in graph.inputs:
        conversion.input(value)
    for node in graph.nodes:
        if not needed.isdisjoint(node.outputs):
            conversion.convert(node)
    results = [conversion.tensor(v) for v in graph.outputs]
    conversion.graph.output(results[0] if len(results) == 1 else tuple(results))
    nodes = conversion.attributes.finish() | conversion.nodes
    return Imported(
        fx.GraphModule(conversion.attributes.module, conversion.graph).eval(),
        graph,
        conversion.attributes.tensors,
        {value.name: node.name for value, node in nodes.items()},
        batch,
        input_specs(model, graph, {v.name: v.shape for v in graph.inputs if v.shape is not None})[-1],
    )


def _needed(conversion: Conversion, graph: Graph) -> set[Value]:
    """Values that the outputs are computed from; literals and constants are none of them.

    Raises ConversionError where operators among them have no converter.
    """
    needed = {v for v in graph.outputs if not conversion.is_settled(v)}
    missing = []
    for node in reversed(graph.nodes):
        if needed.isdisjoint(node.outputs):
            continue
        if find_converter(node.op) is None:
            missing.append(node)
        needed.update(v for v in node.inputs if v is not None and not conversion.is_settled(v))
    if missing:
        raise _unsupported(missing[::-1])
    return needed


def _unsupported(nodes: list[Node]) -> ConversionError:
    """One sentence for the first of ``nodes``, in graph order, and the operators of the others."""
    first = nodes[0]
    others = sorted({n.op for n in nodes} - {first.op})
    also = f" (nor {', '.join(others)})" if others else ""
    return ConversionError(
        f"node {first.name!r}: operator {first.op}{also} cannot be converted to PyTorch, so the model cannot be "
        "trained here; use a method without training, or export the model without it"
    )


def accepts_batches(imported: Imported) -> bool:
    """Whether a batch of two gives what two batches of one give (for a file of fixed batch N: 2 N and N).

    Runs the module three times in eval mode on random inputs. False for a model that mixes its samples, and
    for one that runs at its own batch size only.
    """
    axes, module = imported.batch.axes, imported.module
    if not axes:
        return False
    specs = [
        replace(s, shape=resized(s.shape, axes.get(s.name), imported.batch.fixed or 1))
        for s in imported.specs
    ]
    first, second = (_inputs(specs, seed) for seed in range(2))
    both = {n: torch.cat((x, second[n]), axes[n]) if n in axes else x for n, x in first.items()}
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            runs = [module(*feed.values()) for feed in (both, first, first | {n: second[n] for n in axes})]
    except (RuntimeError, ValueError, TypeError, IndexError):  # whatever an operator says to other sizes
        return False
    finally:
        module.train(training)
    outputs = ([run] if isinstance(run, torch.Tensor) else run for run in runs)
    return all(_agree(*tensors) for tensors in zip(*outputs, strict=True))


def _inputs(specs: list[InputSpec], seed: int) -> dict[str, torch.Tensor]:
    return {name: to_tensor(array, name) for name, array in draw(specs, "normal", (seed,)).items()}


def _agree(both: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.ndim != both.ndim or first.shape != second.shape:
        return False
    grown = [a for a, (x, y) in enumerate(zip(both.shape, first.shape, strict=True)) if x != y]
    if not grown:
        return _close(both, first) and _close(both, second)
    apart = torch.cat((first, second), grown[0])
    return apart.shape == both.shape and _close(both, apart)


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    a, b = a.double(), b.double()  # booleans have no difference
    scale = float(a.abs().max()) if a.numel() else 0.0
    return bool(((a - b).abs() <= AGREEMENT * scale).all())
