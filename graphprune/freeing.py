"""Channels that zeroed weights have made useless, and that can go without changing any output.

A coupled channel is free where no consumer reads it (every weight that would is 0), or where it is 0 itself,
whatever the input (its producers' weights are 0, and so is what remains). Only whole blocks of channels go, so
that the other blocks stay on the grid of the weights they are in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.contractions import ContractionWeight, contraction_weights
from graphprune.coupling import Coupling
from graphprune.criteria.scoring import slice_scores
from graphprune.feeds import STYLES, draw, input_specs
from graphprune.graph import Value
from graphprune.labels import Labels
from graphprune.records import Slice
from graphprune.running import Session

RUNS = 3
"""Inputs on which a channel that depends on no input must be 0."""

_SIZES = frozenset({"Shape", "Size"})
"""Operators that read no numbers."""


def free_channels(
    model: ir.Model,
    analysis: Analysis,
    blocks: Mapping[str, Sequence[int]],
    *,
    excluded: Collection[str] = (),
    multiple_of: int | None = None,
) -> np.ndarray:
    """The decision (bool ``[components]``) that removes what ``model`` can lose at no cost.

    ``model`` holds the zeroed weights, and ``analysis`` is of it. ``blocks``: weight name -> block sizes along
    its axes. Weights in ``excluded`` lose nothing. Channels leave by multiples of ``multiple_of``.
    """
    coupling = analysis.coupling
    weights = contraction_weights(analysis.graph)
    read = _read(coupling)
    free = coupling.removable & ~read
    idle = _idle(coupling, weights) & coupling.removable & read
    if idle.any():
        free |= idle & _always_zero(model, analysis, idle)
    free &= ~_bound(coupling, blocks, excluded)
    grids = coupling.grids
    free &= ~grids.derived
    free = _whole_blocks(coupling, free, blocks, multiple_of or 1)
    return grids.complete(~free)


# -- who reads a channel ----------------------------------------------------------------------------------


def _read(coupling: Coupling) -> np.ndarray:
    """bool ``[components]``: a consumer has a non-zero weight for it, or reads it otherwise."""
    coupler, grids = coupling.coupler, coupling.grids
    found, summed = np.zeros(coupling.count, bool), np.zeros(coupling.count, bool)
    for s in coupler.slices:
        if coupler.summed[s.ids].any():
            channels = coupling.of(s.ids)
            summed[channels] = True
            if coupling.removable[channels].any():
                np.logical_or.at(found, channels, _non_zero(s))
    for gate in coupler.gates:
        found[coupling.of(gate.ids)] = True
    for mixing in coupler.mixings:
        found[coupling.of(mixing.ids)] = True
    found |= ~summed & ~grids.derived  # nothing is known to sum over it
    for side in (0, 1):
        parents = grids.parents[grids.derived, side]
        np.logical_or.at(found, parents, found[grids.derived])
    return found


def _non_zero(s: Slice) -> np.ndarray:
    """Whether any weight at each index of a slice is not 0: bool, the shape of ``s.ids``."""
    return slice_scores(
        np.asarray(s.tensor.array()) != 0, s, lambda units: np.asarray(units.weights.any(axis=1))
    )


# -- channels that are 0 ------------------------------------------------------------------------------------


def _idle(coupling: Coupling, weights: Sequence[ContractionWeight]) -> np.ndarray:
    """bool ``[components]``: every weight that would make it depend on the input is 0."""
    makers = {w.node: w for w in weights if w.conv_groups == 1}
    outputs = {(w.value, w.out_axis) for w in makers.values()}
    found, busy = np.zeros(coupling.count, bool), np.zeros(coupling.count, bool)
    for ids, node in coupling.coupler.born:
        (found if node in makers else busy)[coupling.of(ids)] = True
    for s in coupling.coupler.slices:
        if (s.tensor, s.axis) in outputs:
            np.logical_or.at(busy, coupling.of(s.ids), _non_zero(s))
    for mixing in coupling.coupler.mixings:  # statistics count the channel, 0 or not
        busy[coupling.of(mixing.ids)] = True
    return np.asarray(found & ~busy)


def _always_zero(model: ir.Model, analysis: Analysis, idle: np.ndarray) -> np.ndarray:
    """bool ``[components]``: 0 wherever an operator ends it (a sum reads it), on every input tried.

    ``idle``: bool ``[components]``, the channels in question.
    """
    coupling = analysis.coupling
    watched = _ends(coupling, idle)
    zero, seen = np.ones(coupling.count, bool), np.zeros(coupling.count, bool)
    shapes = {v.name: v.shape for v in analysis.graph.inputs if v.shape is not None}
    specs = input_specs(model, analysis.graph, shapes)[-1]
    with Session(model, [v.name for v in watched]) as session:
        for seed in range(RUNS):
            results = session.run(draw(specs, STYLES[seed % len(STYLES)], [seed]))
            for value, labels in watched.items():
                array = results.get(value.name)
                if array is None or array.dtype.kind != "f":  # not seen, or quantised: 0 stands elsewhere
                    zero[_channels(coupling, labels)] = False
                    continue
                array = array.reshape([n for factors in labels.factors for n in factors])
                for term in labels.terms:
                    channels = coupling.of(term).reshape(-1)
                    constant = tuple(a for a in range(array.ndim) if term.shape[a] == 1)
                    live = (array != 0).any(axis=constant).reshape(-1)
                    np.logical_and.at(zero, channels, ~live)
                    seen[channels] = True
    return zero & seen


def _ends(coupling: Coupling, idle: np.ndarray) -> dict[Value, Labels]:
    """Activations with ``idle`` channels that one of their readers does not only pass on, and their labels."""
    makers = {node for _, node in coupling.coupler.born}
    found = {}
    for value, labels in coupling.labels.items():
        if labels is None:
            continue
        channels = _channels(coupling, labels)
        channels = channels[idle[channels]]
        if value.constant or not channels.size:
            continue
        for node in value.consumers:
            if node.op in _SIZES:
                continue
            passed = [_channels(coupling, coupling.labels.get(o)) for o in node.outputs]
            if node in makers or not np.isin(channels, np.concatenate(passed)).all():
                found[value] = labels
                break
    return found


def _channels(coupling: Coupling, labels: Labels | None) -> np.ndarray:
    """Distinct coupled channels of a value."""
    terms = [coupling.of(t).reshape(-1) for t in labels.terms] if labels is not None else []
    return np.unique(np.concatenate(terms)) if terms else np.zeros(0, np.int64)


# -- what binds channels together ------------------------------------------------------------------------------


def _bound(coupling: Coupling, blocks: Mapping[str, Sequence[int]], excluded: Collection[str]) -> np.ndarray:
    """bool ``[components]``: under count constraints, cut differently in conv groups, or excluded."""
    found = np.zeros(coupling.count, bool)
    coupler = coupling.coupler
    for balance in (*coupler.balances, *coupler.position_ties):
        found[coupling.of(balance.ids)] = True
    for s in coupler.slices:
        shared = s.rows > 1 or len(s.tensor.consumers) > 1
        if s.tensor.name in excluded or (shared and s.tensor.name in blocks):
            found[coupling.of(s.ids)] = True
    bound = coupling.grids.derived & found
    found[coupling.grids.parents[bound].reshape(-1)] = True
    return found


def _whole_blocks(
    coupling: Coupling, free: np.ndarray, blocks: Mapping[str, Sequence[int]], multiple_of: int
) -> np.ndarray:
    """The largest part of ``free`` (bool ``[components]``) that leaves by whole blocks in every weight.

    Every axis keeps at least one block.
    """
    axes: list[tuple[np.ndarray, int]] = []
    for s in coupling.coupler.slices:
        channels = coupling.of(s.ids)
        if not free[coupling.grids.deciders(channels)].any():
            continue
        step = blocks[s.tensor.name][s.axis] if s.tensor.name in blocks else 1
        rows = channels if s.rows > 1 else channels[None]
        axes += [
            (row.reshape(-1), math.lcm(step, multiple_of if s.tensor.name in blocks else 1)) for row in rows
        ]
    while True:
        goes = ~coupling.grids.complete(~free)
        stays = np.zeros(coupling.count, bool)
        for channels, step in axes:
            leaving = goes[channels]
            starts = np.arange(0, channels.size, step)
            whole = np.logical_and.reduceat(leaving, starts)
            if whole.all():
                whole[0] = False
            stays[channels[leaving & ~np.repeat(whole, step)[: channels.size]]] = True
        stays[coupling.grids.deciders(np.flatnonzero(stays))] = True
        if not (free & stays).any():
            return free
        free = free & ~stays
