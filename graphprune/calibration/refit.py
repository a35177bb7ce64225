"""Compensation: through a pruned network in order, every contraction towards what the original computes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.calibration.collect import Progress, batch_size, dtypes_of, places_of, silent
from graphprune.calibration.fitting import Rows, activation, fit_statistics, fit_weights
from graphprune.calibration.pairs import Pair
from graphprune.calibration.segments import Segment
from graphprune.calibration.views import View
from graphprune.calibration.walk import Walk
from graphprune.errors import OptionError
from graphprune.graph import Graph
from graphprune.lookup import hint
from graphprune.running import Feed
from graphprune.writeback import with_tensors

KINDS = ("none", "bias", "lstsq")

TARGET_BYTES = 500_000_000
"""Targets of the original that are held at once."""


@dataclass(frozen=True)
class Fitting:
    """kind: one of KINDS. ridge: relative to the mean square of the inputs. iterations: solves where a ReLU follows."""

    kind: str = "lstsq"
    ridge: float = 0.01
    iterations: int = 8
    seed: int = 0


def check_kind(kind: str) -> None:
    """Raises OptionError, with the nearest name, for an unknown one."""
    if kind not in KINDS:
        raise OptionError(f"unknown --compensate {kind!r}: {hint(kind, KINDS)}")


def refit(
    pruned: ir.Model,
    graph: Graph,
    original: ir.Model,
    original_graph: Graph,
    pairs: Sequence[Pair],
    batches: Sequence[Feed],
    fitting: Fitting,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """New tensors of the pruned model by name, in its shapes (``graph`` is its analysis).

    Every contraction of ``pairs`` (in graph order) is fitted on the inputs that it has in the pruned network once
    everything before it has been, to the outputs that the original has; where its BatchNormalization (or a bias
    added after it) has other numbers than the original's, to what these turn into the same values. Both see
    ``batches``.
    """
    found: dict[str, np.ndarray] = {}
    if fitting.kind == "none":
        return found
    walk = Walk(pruned, batches, dtypes_of(graph))
    samples = sum(batch_size(b) for b in batches)
    waiting = {p.pruned.output.name for p in pairs}
    done = 0
    for chunk in _chunks(pairs, samples, fitting.seed):
        places = {p.name: places_of(p.original, samples, fitting.seed) for p in chunk}
        targets = _targets(original, original_graph, chunk, batches, places)
        for pair in chunk:
            waiting.discard(pair.pruned.output.name)
            rows = _rows(pair, walk, targets.pop(pair.name), places[pair.name], waiting)
            if fitting.kind == "bias":
                new = fit_statistics(pair, rows)
            else:
                new = fit_weights(pair, rows, fitting.ridge, fitting.iterations)
            found |= new
            walk.model = with_tensors(walk.model, new)
            done += 1
            progress("refit", done, len(pairs))
    return found


def in_units_of(pair: Pair, y: np.ndarray) -> np.ndarray:
    """Outputs of the original's contraction ``[rows, outputs]`` (those that are left) -> what the pruned one has to
    give, so that after the BatchNormalization or the added bias of each both are the same."""
    (slope, offset), (slope_there, offset_there) = _affine(pair.pruned), _affine(pair.original)
    slope_there, offset_there = slope_there[pair.outputs], offset_there[pair.outputs]
    if np.array_equal(slope, slope_there) and np.array_equal(offset, offset_there):
        return y
    safe = np.where(slope == 0, 1, slope)
    factor, shift = slope_there / safe, (offset_there - offset) / safe
    return np.asarray(y * factor.astype(np.float32) + shift.astype(np.float32))


def _affine(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of what stands between the contraction and the next value, float64 ``[outputs]``."""
    slope, offset = activation(view)
    if view.node.op == "MatMul" and view.shift is not None:
        offset = offset + np.asarray(view.shift.value.array(), np.float64).reshape(-1)
    return slope, offset


Targets = tuple[list[np.ndarray], list[np.ndarray]]
"""What the original computes, and what is added to it there (empty for nothing), batch by batch."""


def _rows(pair: Pair, walk: Walk, targets: Targets, places: np.ndarray, waiting: set[str]) -> Rows:
    """``waiting``: outputs of contractions still to be fitted, which nothing may be computed from."""
    view = pair.pruned
    assert view.output.shape is not None
    shape = view.output.shape
    x = [view.rows(np.asarray(v, np.float32), shape, places) for v in walk.reach(view.input.name)]
    y, there = targets
    if not pair.added or walk.passes(pair.added, waiting):
        return Rows(x, y)
    here = [_outputs(view, v, places) for v in walk.reach(pair.added)]
    return Rows(x, y, there, here)


def _outputs(view: View, y: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``[rows, outputs]``"""
    found = view.outputs(np.asarray(y, np.float32), places)
    return found.reshape(len(found), -1)


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
    graph: Graph,
    pairs: Sequence[Pair],
    batches: Sequence[Feed],
    places: Mapping[str, np.ndarray],
) -> dict[str, Targets]:
    """By weight name; of the outputs that are left: ``[rows, outputs]``."""
    found: dict[str, Targets] = {p.name: ([], []) for p in pairs}
    inputs = [v.name for v in graph.inputs]
    names = [p.original.output.name for p in pairs] + [p.added for p in pairs if p.added]
    names = [n for n in dict.fromkeys(names) if n not in inputs]
    with Segment(original, inputs, names, dtypes_of(graph)) as part:
        for feed in batches:
            values = {**feed, **part.run(feed)}
            for pair in pairs:
                view, (y, added) = pair.original, found[pair.name]
                there = _outputs(view, values[view.output.name], places[view.name])[:, pair.outputs]
                y.append(in_units_of(pair, there))
                if pair.added:
                    added.append(_outputs(view, values[pair.added], places[view.name])[:, pair.outputs])
    return found
