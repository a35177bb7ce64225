"""A decision as a model that can be run: physically smaller, its readers refitted in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.calibration.moments import damping, kept_columns
from graphprune.calibration.readers import Readers
from graphprune.calibration.segments import Segment
from graphprune.running import THREADS, Feed, Results, top_level_values
from graphprune.surgery import apply, changed_slices, sliced
from graphprune.writeback import with_tensors


def candidate(
    model: ir.Model, analysis: Analysis, alive: np.ndarray, arrays: dict[str, np.ndarray]
) -> ir.Model:
    """``model`` (which was analysed) without what is not ``alive`` (bool ``[components]``).

    ``arrays``: tensors, in their original shapes, with other numbers.
    """
    coupling = analysis.coupling
    alive = coupling.grids.complete(alive)
    small = apply(model, coupling, alive).model
    return with_tensors(small, cut_arrays(small, analysis, alive, arrays))


def cut_arrays(
    small: ir.Model, analysis: Analysis, alive: np.ndarray, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Tensors of the original's shapes -> those of the smaller model; what it does not have is left out."""
    coupling = analysis.coupling
    kept = coupling.kept(alive)
    slices = {v.name: s for v, s in changed_slices(coupling, kept).items()}
    there = top_level_values(small.graph)
    return {n: sliced(a, slices[n], kept) if n in slices else a for n, a in arrays.items() if n in there}


def refitted(
    readers: Readers, alive: np.ndarray, ridge: float, names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Weights and shifts of contractions that lose columns, refitted on the dense network's inputs.

    In the original's shapes; removed columns keep their numbers. ``alive``: bool ``[components]``.
    """
    found: dict[str, np.ndarray] = {}
    for name in readers.channels if names is None else names:
        channels, view, moments = readers.channels[name], readers.views[name], readers.moments[name]
        keep = (channels < 0) | alive[channels]
        if keep.all() or not _even(keep):
            continue
        kept = np.stack([np.flatnonzero(row) for row in keep])
        stored = np.asarray(view.weight.value.array())
        w = view.matrix(stored)
        covariance = moments.covariance(centred=view.shift is not None)
        new = kept_columns(covariance, w, kept, damping(covariance, moments.rows, ridge))
        whole = w.copy()
        whole[np.arange(len(w))[:, None], kept] = new
        found[name] = view.tensor(whole, stored.shape).astype(np.float32)
        if view.shift is not None:
            mean = moments.x / moments.rows
            before = np.einsum("gc,gco->go", mean, w)
            after = np.einsum("gk,gko->go", mean[np.arange(len(w))[:, None], kept], new)
            old = np.asarray(view.shift.value.array())
            change = (before - after).reshape(-1) * view.shift.factor
            found[view.shift.value.name] = (old + change.reshape(old.shape)).astype(np.float32)
    return found


def _even(keep: np.ndarray) -> bool:
    """Whether every conv group keeps equally many columns, and some."""
    counts = keep.sum(1)
    return bool(counts.min() == counts.max() > 0)


def run_outputs(
    model: ir.Model,
    names: Sequence[str],
    inputs: Sequence[str],
    batches: Sequence[Feed],
    *,
    threads: int = THREADS,
) -> list[Results]:
    """What a model computes, batch by batch."""
    with Segment(model, inputs, names, {}, threads=threads) as part:
        return [part.run(feed) for feed in batches]
