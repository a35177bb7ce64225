"""Least squares through a pruned network: every contraction towards what the original computed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.calibration.collect import Progress, batch_size, dtypes_of, places_of, silent
from graphprune.calibration.moments import Moments, damping, solve
from graphprune.calibration.segments import Segment
from graphprune.calibration.views import View
from graphprune.calibration.walk import Walk
from graphprune.graph import Graph
from graphprune.running import Feed
from graphprune.writeback import with_tensors

MAX_COLUMNS = 6_144
STORED_BYTES = 400_000_000
"""Rows are kept for repeated solves up to this size."""

TARGET_BYTES = 500_000_000
"""Targets of the original that are held at once."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A contraction of the pruned model, that of the original, and which of its outputs are left (int array)."""

    pruned: View
    original: View
    outputs: np.ndarray
    relu: bool = False
    """Whether only positive outputs matter."""


def refit_in_order(
    small: ir.Model,
    graph: Graph,
    original: ir.Model,
    original_graph: Graph,
    pairs: Sequence[Pair],
    batches: Sequence[Feed],
    *,
    ridge: float,
    iterations: int = 3,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """New weights and shifts of the pruned model by name.

    Every contraction, in graph order, is fitted on the inputs that the refitted network before it gives, to the
    outputs that the original has there. ``relu``: where a ReLU follows, outputs that the original has below 0 may
    be anything below 0 (``iterations`` solves). Ridge towards today's weights.
    """
    found: dict[str, np.ndarray] = {}
    walk = Walk(small, batches, dtypes_of(graph))
    samples = sum(batch_size(b) for b in batches)
    inputs = [v.name for v in original_graph.inputs]
    done = 0
    for chunk in _chunks(pairs, samples, seed):
        places = {p.original.name: places_of(p.original, samples, seed) for p in chunk}
        targets = _targets(original, inputs, original_graph, chunk, batches, places)
        for pair in chunk:
            values = walk.reach(pair.pruned.input.name)
            x = [_rows(pair.pruned, v, places[pair.original.name]) for v in values]
            new = _fit(pair, x, targets.pop(pair.original.name), ridge, iterations)
            found |= new
            walk.model = with_tensors(walk.model, new)
            done += 1
            progress("refit", done, len(pairs))
    return found


def _rows(view: View, x: np.ndarray, places: np.ndarray) -> np.ndarray:
    assert view.output.shape is not None
    return view.rows(np.asarray(x, np.float32), view.output.shape, places)


def _chunks(pairs: Sequence[Pair], samples: int, seed: int) -> list[list[Pair]]:
    """Neighbours whose targets fit into memory together."""
    found: list[list[Pair]] = []
    held = 0
    for pair in pairs:
        size = 4 * places_of(pair.original, samples, seed).size * samples * pair.outputs.size
        if not found or held + size > TARGET_BYTES:
            found.append([])
            held = 0
        found[-1].append(pair)
        held += size
    return found


def _targets(
    original: ir.Model,
    inputs: Sequence[str],
    graph: Graph,
    pairs: Sequence[Pair],
    batches: Sequence[Feed],
    places: Mapping[str, np.ndarray],
) -> dict[str, list[np.ndarray]]:
    """Weight name -> rows of what the original computes, batch by batch: ``[rows, 1, outputs]`` of those left."""
    found: dict[str, list[np.ndarray]] = {p.original.name: [] for p in pairs}
    names = list(dict.fromkeys(p.original.output.name for p in pairs))
    with Segment(original, inputs, names, dtypes_of(graph)) as part:
        for feed in batches:
            values = part.run(feed)
            for pair in pairs:
                view = pair.original
                y = view.outputs(np.asarray(values[view.output.name], np.float32), places[view.name])
                found[view.name].append(y.reshape(len(y), -1)[:, pair.outputs])
    return found


def _fit(
    pair: Pair, x: list[np.ndarray], y: list[np.ndarray], ridge: float, iterations: int
) -> dict[str, np.ndarray]:
    view = pair.pruned
    width = pair.outputs.size // view.groups
    targets = [part.reshape(len(part), view.groups, width) for part in y]
    moments = Moments()
    for a, b in zip(x, targets, strict=True):
        moments.add(a, b)
    assert moments.y is not None
    assert moments.xy is not None
    centred = view.shift is not None
    mean_x, mean_y = moments.x / moments.rows, moments.y / moments.rows
    covariance = moments.covariance(centred=centred)
    cross = moments.xy / moments.rows
    if centred:
        cross = cross - mean_x[:, :, None] * mean_y[:, None, :]
    stored = np.asarray(view.weight.value.array())
    pull = view.matrix(stored)
    damp = damping(covariance, moments.rows, ridge)
    w = solve(covariance, cross, pull, damp)
    own = _own_bias(view).reshape(view.groups, width)
    shift = mean_y - np.einsum("gc,gco->go", mean_x, w) if centred else own
    if pair.relu and iterations > 1 and sum(a.nbytes for a in x) < STORED_BYTES:
        rows, wanted = np.concatenate(x), np.concatenate(targets)
        slope, offset = _activation(view)
        slope, offset = slope.reshape(view.groups, width), offset.reshape(view.groups, width)
        for _ in range(iterations - 1):
            now = np.einsum("ngc,gco->ngo", rows, w.astype(np.float32), optimize=True) + shift.astype(
                np.float32
            )
            # where the original is cut off, what is cut off here too need not move
            zero = -offset / np.where(slope == 0, 1, slope)
            off = slope * wanted + offset <= 0
            limited = np.where(slope > 0, np.minimum(now, zero), np.maximum(now, zero))
            better = np.where(off & (slope != 0), limited, wanted).astype(np.float32)
            mean_y = better.mean(0, dtype=np.float64)
            cross = np.einsum("ngc,ngo->gco", rows, better, optimize=True) / len(rows)
            if centred:
                cross = cross - mean_x[:, :, None] * mean_y[:, None, :]
            w = solve(covariance, cross, pull, damp)
            shift = mean_y - np.einsum("gc,gco->go", mean_x, w) if centred else own
    found = {view.name: view.tensor(w, stored.shape).astype(np.float32)}
    if view.shift is not None:
        old = np.asarray(view.shift.value.array())
        change = (shift - own).reshape(-1) * view.shift.factor
        found[view.shift.value.name] = (old + change.reshape(old.shape)).astype(np.float32)
    return found


def _own_bias(view: View) -> np.ndarray:
    """What the contraction itself adds, float64 ``[outputs]``."""
    bias = view.node.input(2) if view.node.op in ("Conv", "Gemm") else None
    width = view.weight.shape[view.weight.out_axis]
    if bias is None or not bias.constant:
        return np.zeros(width)
    return np.broadcast_to(bias.array().astype(np.float64).reshape(-1), (width,))


def _activation(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset between the contraction's output and the ReLU: those of a BatchNormalization."""
    width = view.weight.shape[view.weight.out_axis]
    reader = view.output.consumers[0] if view.output.consumers else None
    if reader is None or reader.op != "BatchNormalization":
        return np.ones(width), np.zeros(width)
    scale, beta, mean, variance = (
        np.asarray(v.array(), np.float64) for v in reader.inputs[1:5] if v is not None
    )
    slope = scale / np.sqrt(variance + reader.attr("epsilon", 1e-5))
    return slope, beta - mean * slope


def feeds_relu(view: View) -> bool:
    """Whether nothing but a ReLU (or a Clip at 0) reads the output, perhaps behind a BatchNormalization."""
    value = view.output
    for _ in range(2):
        if value.is_output or len(value.consumers) != 1:
            return False
        reader = value.consumers[0]
        if reader.op == "Relu":
            return True
        if reader.op == "Clip":
            low = reader.input(1)
            least = reader.attr("min") if low is None else low.known
            return least is not None and float(np.asarray(least).reshape(())) == 0.0
        if reader.op != "BatchNormalization":
            return False
        value = reader.outputs[0]
    return False
