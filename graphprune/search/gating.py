"""Rewriting an fx module: mask entries times values, as plain torch calls."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from graphprune.errors import ConversionError
from graphprune.graph import Node
from graphprune.search.statistics import weight_statistics
from graphprune.search.units import Gate

MASKS = "masks"
"""The submodule that gives the mask entries."""

_RUN = 32
"""Neighbouring numbers from which a loop over them pays; masks are written out until they come in such runs."""


def insert_gates(
    module: fx.GraphModule,
    nodes: Mapping[str, str],
    gates: Sequence[Gate],
    masks: nn.Module,
    statistics: Sequence[tuple[Node, np.ndarray]] = (),
) -> None:
    """Multiply the values named by ``gates`` by entries of ``masks()`` (float ``[entries]``), in place.

    ``nodes``: ONNX value name -> fx node name. ``statistics``: normalisations over channels, with the entries
    that weight each (int ``[channels]``). All entries are gathered by one ``index_select`` and cut by
    one ``split`` at the head of the graph. Raises ConversionError where a gate's value is not in the module.
    """
    graph = module.graph
    targets = _targets(graph, nodes, [g.value for g in gates])
    arrays = [_written_out(g) for g in gates] + [entries for _, entries in statistics]
    module.add_submodule(MASKS, masks)
    if not arrays:  # nothing that may go reaches an output
        return
    flat = np.concatenate([a.reshape(-1) for a in arrays]).astype(np.int64)
    module.register_buffer("mask_entries", torch.from_numpy(flat), persistent=False)
    with graph.inserting_before(next(n for n in graph.nodes if n.op != "placeholder")):
        every = graph.call_module(MASKS)
        gathered = graph.call_function(torch.index_select, (every, 0, graph.get_attr("mask_entries")))
        parts = graph.call_function(torch.split, (gathered, [a.size for a in arrays]))
        views = [
            graph.call_method("view", (graph.call_function(operator.getitem, (parts, i)), *a.shape))
            for i, a in enumerate(arrays)
        ]
    for target, view, gate in zip(targets, views, gates, strict=False):
        readers = list(target.users)
        gated = _multiply(graph, target, view, gate)
        for reader in readers:
            reader.replace_input_with(target, gated)
    normalisations = [node for node, _ in statistics]
    weight_statistics(graph, nodes, list(zip(normalisations, views[len(gates) :], strict=True)))
    graph.lint()
    module.recompile()


def wrap_values(module: fx.GraphModule, nodes: Mapping[str, str], rows: Mapping[str, nn.Module]) -> None:
    """Pass values through modules (ONNX value name -> ``value -> masked value``), in place."""
    graph = module.graph
    for i, (target, row) in enumerate(zip(_targets(graph, nodes, list(rows)), rows.values(), strict=True)):
        name = f"{MASKS}_{i}"
        module.add_submodule(name, row)
        readers = list(target.users)
        with graph.inserting_after(target):
            masked = graph.call_module(name, (target,))
        for reader in readers:
            reader.replace_input_with(target, masked)
    graph.lint()
    module.recompile()


def _targets(graph: fx.Graph, nodes: Mapping[str, str], values: Sequence[str]) -> list[fx.Node]:
    by_name = {n.name: n for n in graph.nodes}
    missing = [v for v in values if nodes.get(v) not in by_name]
    if missing:
        raise ConversionError(
            f"{missing[0]!r} must be masked, but the trainable module does not hold it: "
            "--exclude its layer, or use a one-shot method"
        )
    return [by_name[nodes[v]] for v in values]


def _multiply(graph: fx.Graph, target: fx.Node, view: fx.Node, gate: Gate) -> fx.Node:
    """``target * view``, placed right after ``target``."""
    anchor = target

    def emit(function: Callable[..., Any], *args: Any) -> fx.Node:
        nonlocal anchor
        with graph.inserting_after(anchor):
            anchor = graph.call_function(function, args)
        return anchor

    if gate.split is None:
        return emit(torch.mul, target, view)
    return emit(torch.reshape, emit(torch.mul, emit(torch.reshape, target, gate.split), view), gate.shape)


def _written_out(gate: Gate) -> np.ndarray:
    """The gate's entries, repeated along the last axes where broadcasting would change masks too often.

    The product (and its gradient) runs over the last axes in loops; one over a 3 x 3 kernel costs several
    times what its nine numbers do.
    """
    entries, sizes = gate.entries, gate.split or gate.shape
    if sizes is None:
        return entries
    cut, run = len(sizes), 1
    while cut and run < _RUN:
        cut -= 1
        run *= sizes[cut]
    if math.prod(entries.shape[cut:]) == 1:
        return entries
    return np.broadcast_to(entries, (*entries.shape[:cut], *sizes[cut:]))
