"""Inputs that a model is timed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from graphprune.errors import OptionError
from graphprune.feeds import draw, input_specs
from graphprune.graph import Graph
from graphprune.running import Feed


def timing_feed(model: ir.Model, graph: Graph, input_shapes: Mapping[str, Sequence[int]]) -> Feed:
    """Random numbers, the same for the same sizes: those that ``graph`` was analysed at. Raises ModelError."""
    specs = input_specs(model, graph, input_shapes)[-1]
    return draw(specs, "normal", [0])


def with_batch(
    model: ir.Model, graph: Graph, batch: int, given: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Input name -> sizes with ``batch`` samples, for the inputs that ``given`` leaves open.

    Raises OptionError where the model fixes its batch.
    """
    found = {name: tuple(sizes) for name, sizes in given.items()}
    sources = {v.name: v.shape for v in model.graph.inputs}
    changed = False
    for value in graph.inputs:
        if value.name in found or not value.shape:
            continue
        dims = sources.get(value.name)
        is_open = dims is not None and not isinstance(dims[0], int)
        if is_open:
            found[value.name] = (batch, *value.shape[1:])
            changed = True
        elif value.shape[0] == batch:
            changed = True
    if not changed:
        raise OptionError(
            f"--batch {batch}: the model fixes the size of its batch; leave --batch out, or name sizes with "
            "--input-shape"
        )
    return found
