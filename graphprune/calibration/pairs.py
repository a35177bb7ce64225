"""Contractions of a pruned model beside those of the original that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphprune.calibration.collect import MAX_COLUMNS
from graphprune.calibration.views import View, views
from graphprune.coupling import Coupling
from graphprune.edits import Kept
from graphprune.graph import Graph, Node


@dataclass(frozen=True, eq=False)
class Pair:
    """A contraction of the pruned model, that of the original, and what comes after it.

    outputs: int, which of the original's outputs are left. added: the value that is added to the output, by its
    name in both models; "" for none. relu: whether a ReLU comes then, so that negative sums may be anything
    negative. support: bool, of the stored weight, what may differ from 0; None for everything.
    """

    pruned: View
    original: View
    outputs: np.ndarray
    added: str = ""
    relu: bool = False
    support: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Of the weight, in both."""
        return self.pruned.name


def channel_pairs(pruned: Graph, original: Graph, coupling: Coupling, kept: Kept) -> list[Pair]:
    """Contractions of ``pruned``, which was cut from ``original`` as ``kept`` says, in graph order.

    Left out are those over more columns than can be solved for.
    """
    originals = {v.name: v for v in views(original)}
    along = {(s.tensor.name, s.axis): s.ids for s in coupling.coupler.slices if s.rows == 1}
    found = []
    for view in views(pruned):
        old = originals.get(view.name)
        if old is None or view.columns > MAX_COLUMNS:
            continue
        width = old.weight.shape[old.weight.out_axis]
        ids = along.get((old.name, old.weight.out_axis))
        outputs = np.arange(width) if ids is None else np.flatnonzero(kept.mask(ids))
        if outputs.size == view.weight.shape[view.weight.out_axis]:
            found.append(Pair(view, old, outputs, *what_follows(view)))
    return found


def weight_pairs(pruned: Graph, original: Graph, masks: Mapping[str, np.ndarray]) -> list[Pair]:
    """Contractions of a model whose weights are zeroed outside of ``masks`` (tensor name -> bool)."""
    originals = {v.name: v for v in views(original)}
    return [
        Pair(
            v,
            originals[v.name],
            np.arange(v.weight.shape[v.weight.out_axis]),
            *what_follows(v),
            masks.get(v.name),
        )
        for v in views(pruned)
        if v.columns <= MAX_COLUMNS and v.name in originals
    ]


def what_follows(view: View) -> tuple[str, bool]:
    """The value that is added to the output ("" for none), and whether a ReLU (or a Clip at 0) comes then.

    A BatchNormalization may stand between; nothing else may read any of these.
    """
    value, added = view.output, ""
    for _ in range(3):
        if value.is_output or len(value.consumers) != 1:
            return added, False
        reader = value.consumers[0]
        if reader.op in ("Relu", "Clip"):
            return added, reader.op == "Relu" or _cuts_at_zero(reader)
        if reader.op == "Add" and not added:
            other = reader.input(1) if reader.input(0) is value else reader.input(0)
            if other is None or other is value or other.constant or other.shape != value.shape:
                return added, False
            added = other.name
        elif reader.op != "BatchNormalization" or added:
            return added, False
        value = reader.outputs[0]
    return added, False


def _cuts_at_zero(clip: Node) -> bool:
    low = clip.input(1)
    least = clip.attr("min") if low is None else low.known
    return least is not None and float(np.asarray(least).reshape(())) == 0.0
