"""The figures of README.md, as SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.benchmarks.paper.cells import Cell
from tests.benchmarks.paper.experiments import BLOCK, CURVE, CURVE_METHODS, PAPER_METHODS, curve_row, tuned
from tests.benchmarks.paper.store import HERE, Rows

LAYERS = HERE / "results" / "layers.svg"
CURVES = HERE / "results" / "curves.svg"
PLACES = {"channels, 50 %": ("channel", 0.5), "blocks 16x8x1x1, 70 %": (BLOCK, 0.7)}


def draw(rows: Rows) -> None:
    """Write both figures."""
    mpl.rcParams["svg.hashsalt"] = "graphprune"  # the same rows, the same file
    _save(layers(rows), LAYERS)
    _save(curves(rows), CURVES)


def layers(rows: Rows) -> Figure:
    """The share of its weights that every layer of ResNet-20 keeps, seed 0, method by method."""
    drawn = Figure(figsize=(9, 6), layout="constrained")
    for axes, (title, (structure, sparsity)) in zip(
        drawn.subplots(len(PLACES), 1, sharex=True), PLACES.items(), strict=True
    ):
        for method in PAPER_METHODS:
            cell = Cell.of(rows, tuned(rows, "resnet20", structure, sparsity, method, 0))
            if 0 in cell.by_seed:
                kept = cell.by_seed[0]["layers"]
                axes.plot(range(len(kept)), list(kept.values()), marker=".", label=method)
                axes.set_xticks(range(len(kept)), [n.removesuffix(".weight") for n in kept], rotation=90)
        axes.set_title(title)
        axes.set_ylabel("share of weights kept")
        axes.set_ylim(0, 1.02)
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(PAPER_METHODS))
    return drawn


def curves(rows: Rows) -> Figure:
    """Accuracy against sparsity, ResNet-18, channels."""
    drawn = Figure(figsize=(7, 4), layout="constrained")
    axes = drawn.subplots()
    for method in CURVE_METHODS:
        cells = {s: Cell.of(rows, curve_row(rows, s, method)) for s in CURVE}
        found = {100 * s: c.mean for s, c in cells.items() if c.by_seed}
        if found:
            axes.plot(list(found), list(found.values()), marker="o", label=method)
    axes.set_xlabel("channels removed, %")
    axes.set_ylabel("accuracy, %")
    if axes.lines:
        axes.legend()
    return drawn


def _save(drawn: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, metadata={"Date": None})
