"""What a decision does to latency, from the cost table: predicted without building the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.contractions import ContractionWeight, contraction_weights
from graphprune.coupling import Coupling
from graphprune.graph import Node
from graphprune.latency.contraction import DEPTHWISE, Contraction, contraction_of
from graphprune.latency.table import CostTable, Point, Progress
from graphprune.selection import DEFAULT_RULE, Rule, alignment

FRACTIONS = (1.0, 0.75, 0.5, 0.25, 0.125)
"""Of a layer's channels: where the table is measured; between them it is interpolated."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A contraction of the model. ``inputs`` and ``outputs``: its channels (component numbers) along that side; an
    empty array where none of them is coupled, so that the count stays. Of a grouped convolution ``inputs`` are
    those of all groups."""

    node: Node
    contraction: Contraction
    inputs: np.ndarray
    outputs: np.ndarray
    whole: Point
    out_size: int
    """Elements that it makes in the whole model."""

    def counts(self, alive: np.ndarray) -> Point:
        """Kept inputs and outputs (``alive``: bool ``[components]``), at least one each."""
        n_in = int(alive[self.inputs].sum()) if self.inputs.size else self.whole[0]
        n_out = int(alive[self.outputs].sum()) if self.outputs.size else self.whole[1]
        if self.contraction.groups == DEPTHWISE:
            n_in = n_out // self.contraction.multiplier
        return max(n_in, 1), max(n_out, 1)


def layers_of(analysis: Analysis) -> list[Layer]:
    """Contractions with stored weights that can be timed alone, in the order of the graph."""
    coupling = analysis.coupling
    rows: dict[tuple[str, int], np.ndarray] = {}
    for s in coupling.coupler.slices:
        rows[s.tensor.name, s.axis] = coupling.of(s.ids)
    found = []
    for weight in contraction_weights(analysis.graph):
        contraction = contraction_of(weight)
        if contraction is None:
            continue
        found.append(_layer(contraction, weight, rows))
    return found


def _layer(
    contraction: Contraction, weight: ContractionWeight, rows: dict[tuple[str, int], np.ndarray]
) -> Layer:
    none = np.zeros(0, np.int64)
    inputs = rows.get((weight.value.name, weight.in_axis), none)
    outputs = rows.get((weight.value.name, weight.out_axis), none)
    n_in, n_out = weight.inputs * weight.conv_groups, weight.shape[weight.out_axis]
    if weight.group_axis != weight.out_axis:  # a transposed convolution stores the outputs of one group
        n_out *= weight.conv_groups
    if weight.stacked == 1 and inputs.ndim == 1 and inputs.size < n_in:
        inputs = np.tile(inputs, n_in // max(inputs.size, 1)) if inputs.size else none
    if outputs.size and outputs.size < n_out:
        outputs = np.tile(outputs.reshape(-1), n_out // outputs.size)
    made = weight.node.outputs[0].size
    return Layer(weight.node, contraction, inputs.reshape(-1), outputs.reshape(-1), (n_in, n_out), made)


class Surface:
    """Seconds of one layer over its counts: what was measured on a grid, made monotone, and interpolated.

    Fewer channels never cost more here: where they did, that was noise, or a count that the kernels do not like and
    that alignment leaves out.
    """

    def __init__(self, inputs: np.ndarray, outputs: np.ndarray, seconds: np.ndarray) -> None:
        """``seconds``: float ``[inputs, outputs]``, both ascending."""
        self._inputs, self._outputs = inputs.astype(float), outputs.astype(float)
        rising = np.maximum.accumulate(np.maximum.accumulate(seconds, 0), 1)
        turned = np.minimum.accumulate(np.minimum.accumulate(seconds[::-1, ::-1], 0), 1)
        self._seconds = (rising + turned[::-1, ::-1]) / 2

    def __call__(self, counts: Point) -> float:
        """Seconds at (inputs, outputs); at the edge of the grid where they lie outside."""
        along = [float(np.interp(counts[1], self._outputs, row)) for row in self._seconds]
        return float(np.interp(counts[0], self._inputs, along))


class Predictor:
    """Share of the latency that a decision removes, as the cost table and one measurement of the whole tell.

    What the layers of the table do not explain (other operators, the runtime itself) shrinks with what the layers
    write; as far as there are other contractions (quantised ones), with their multiply-accumulates.
    """

    def __init__(
        self,
        analysis: Analysis,
        table: CostTable,
        whole: float,
        rule: Rule = DEFAULT_RULE,
        progress: Progress | None = None,
    ) -> None:
        """``whole``: seconds of the whole model. Measures what the table lacks, on counts that ``rule`` allows."""
        self._layers = layers_of(analysis)
        grids = [_grid(layer, analysis.coupling, rule) for layer in self._layers]
        wanted = [
            (layer.contraction, _points(layer, grid)) for layer, grid in zip(self._layers, grids, strict=True)
        ]
        table.fill(wanted, progress)
        surfaces = [_surface(layer, grid, table) for layer, grid in zip(self._layers, grids, strict=True)]
        timed = [(x, s) for x, s in zip(self._layers, surfaces, strict=True) if s is not None]
        self._layers = [layer for layer, _ in timed]
        self._surfaces = [surface for _, surface in timed]
        full = sum(s(x.whole) for x, s in timed)
        self._rest = max(whole - full, 0.0)
        self._whole = full + self._rest
        self._written = sum(layer.out_size for layer in self._layers)
        self._cost = analysis.cost
        nodes = {layer.node for layer in self._layers}
        self._others = np.array([w.node not in nodes for w in self._cost.works], bool)
        self._other_macs = self._macs_of_others(analysis.everything)

    def __call__(self, alive: np.ndarray) -> float:
        """Share removed, below 0 where it would take longer; ``alive``: bool ``[components]``."""
        counts = [layer.counts(alive) for layer in self._layers]
        seconds = sum(s(c) for s, c in zip(self._surfaces, counts, strict=True))
        kept = [x.out_size * c[1] / x.whole[1] for x, c in zip(self._layers, counts, strict=True)]
        written = sum(kept) / self._written if self._written else 1.0
        others = self._macs_of_others(alive) / self._other_macs if self._other_macs else 1.0
        part = self._other_macs / max(self._cost.total_macs, 1)
        rest = self._rest * (part * others + (1 - part) * written)
        return 1 - (seconds + rest) / max(self._whole, 1e-12)

    def _macs_of_others(self, alive: np.ndarray) -> float:
        return float(self._cost.work_macs(alive)[self._others].sum())


Grid = tuple[list[int], list[int]]


def _grid(layer: Layer, coupling: Coupling, rule: Rule) -> Grid:
    """Counts of inputs and outputs at which a layer is measured."""
    sides = []
    for channels, whole in zip((layer.inputs, layer.outputs), layer.whole, strict=True):
        free = bool(channels.size) and bool(coupling.removable[channels].any())
        sides.append(_counts(whole, layer.contraction.groups, rule) if free else [whole])
    if layer.contraction.groups == DEPTHWISE:
        multiplier = layer.contraction.multiplier
        outputs = sorted({max(n // multiplier, 1) * multiplier for n in sides[1]} | {layer.whole[1]})
        return [n // multiplier for n in outputs], outputs
    return sides[0], sides[1]


def _counts(whole: int, groups: int, rule: Rule) -> list[int]:
    multiple = alignment(whole, None, rule)
    found = {whole}
    for fraction in FRACTIONS[1:]:
        # below the smallest aligned count, counts are free
        step = multiple if whole * fraction >= multiple else max(whole // 8, 1)
        step = int(np.lcm(step, groups)) if groups > 1 else step
        found.add(min(max(round(whole * fraction / step), 1) * step, whole))
    return sorted(found)


def _points(layer: Layer, grid: Grid) -> list[Point]:
    if layer.contraction.groups == DEPTHWISE:
        return list(zip(*grid, strict=True))
    return [(i, o) for i in grid[0] for o in grid[1]]


def _surface(layer: Layer, grid: Grid, table: CostTable) -> Surface | None:
    """None where a point could not be measured."""
    seconds = np.array([table.at(layer.contraction, p) for p in _points(layer, grid)])
    if not np.isfinite(seconds).all():
        return None
    inputs, outputs = map(np.array, grid)
    if layer.contraction.groups == DEPTHWISE:
        return Surface(np.array([1]), outputs, seconds[None])
    return Surface(inputs, outputs, seconds.reshape(inputs.size, outputs.size))
