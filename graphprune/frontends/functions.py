"""Local functions before they are inlined: how large the model becomes."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

import onnx_ir as ir

from graphprune.errors import ModelError

MOST_NODES = 200_000
"""Functions that call functions can describe any number of nodes in a few bytes."""


def check_functions(model: ir.Model) -> None:
    """Raises ModelError where functions call themselves, or stand for more than MOST_NODES nodes."""
    calls = {key: _calls(model, function.all_nodes()) for key, function in model.functions.items()}
    try:
        order = list(TopologicalSorter({key: set(called) for key, called in calls.items()}).static_order())
    except CycleError as error:
        names = " -> ".join(key[1] for key in error.args[1])
        raise ModelError(f"local functions call themselves ({names}): export the model again") from error
    nodes: dict[ir.OperatorIdentifier, int] = {}
    for key in order:
        nodes[key] = sum(1 for _ in model.functions[key].all_nodes()) + sum(nodes[c] for c in calls[key])
    total = len(model.graph) + sum(nodes[c] for c in _calls(model, model.graph.all_nodes()))
    if total > MOST_NODES:
        raise ModelError(
            f"local functions stand for {total} nodes, more than the {MOST_NODES} that graphprune reads: "
            "export the model without functions"
        )


def _calls(model: ir.Model, nodes: Iterable[ir.Node]) -> list[ir.OperatorIdentifier]:
    return [key for node in nodes if (key := node.op_identifier()) in model.functions]
