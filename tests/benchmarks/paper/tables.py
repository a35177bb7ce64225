"""The tables of README.md, here and of the project, from the rows: ``python -m tests.benchmarks.paper tables``."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.paper import tuning
from tests.benchmarks.paper.cells import FINAL, Cell, verdict
from tests.benchmarks.paper.experiments import (
    ABLATIONS,
    BLOCK,
    BLOCKS,
    CHANNELS,
    CURVE,
    CURVE_METHODS,
    FINAL_TEMPS,
    HIGH,
    INIT_TEMPS,
    LATER,
    PAPER_METHODS,
    PRUNED,
    PUBLISHED,
    SUSPECTS,
    TRANSFORMERS,
    curve_row,
    tuned,
)
from tests.benchmarks.paper.networks import NETWORKS
from tests.benchmarks.paper.store import HERE, RESULTS, Rows
from tests.benchmarks.trained import rows as read

README = HERE / "README.md"
FRONT = HERE.parents[2] / "README.md"
"""The project's."""

COLUMNS = (*PAPER_METHODS, "gmp", "magnitude", "pso")
AS_PUBLISHED = "smart, as published"
PRECISIONS = {"bf16": "bfloat16", "none": "float32"}
FIRST = (("resnet20", "channel", 0.5), ("resnet20", BLOCK, 0.7))


def write(rows: Rows) -> None:
    """Put every table in its place, between ``<!-- name -->`` and ``<!-- end -->``, and draw figures."""
    from tests.benchmarks.paper.figures import draw

    for document, tables in TABLES.items():
        text = document.read_text()
        for name, table in tables.items():
            pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            if not pattern.search(text):
                raise SystemExit(
                    f"{document} has no place for {name}: write <!-- {name} --> and <!-- end -->"
                )
            text = pattern.sub(lambda m, table=table: m[1] + "\n".join(table(rows)) + "\n" + m[2], text)
        document.write_text(text)
    draw(rows)


def markdown(head: list[str], lines: list[list[str]]) -> list[str]:
    """A table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *lines)]


def contest(rows: Rows, places: list[tuple[str, str, float]], methods: tuple[str, ...]) -> list[str]:
    """Networks and sparsities down, methods across; the best of a line in bold, and how SMART does against it."""
    lines = []
    for network, structure, sparsity in places:
        cells = cells_of(rows, network, structure, sparsity, methods)
        if not any(c.by_seed for c in cells.values()):
            continue
        shown = best_in_bold(list(cells.values()))
        others = [c for m, c in cells.items() if not m.startswith("smart") and c.by_seed]
        rival = max(others, key=lambda c: c.mean) if others else None
        against = verdict(cells["smart"], rival) if rival else ""
        before = next(100 * r["before"] for c in cells.values() for r in c.by_seed.values())
        title = f"{NETWORKS[network].title} ({before:.1f}), {100 * sparsity:g} %"
        lines.append([title, *shown, against])
    head = [
        "network (dense), sparsity",
        *methods[:1],
        AS_PUBLISHED,
        *methods[1:],
        "smart against the best other",
    ]
    if not lines:
        return ["No row yet."]
    return markdown(head, lines)


def best_in_bold(cells: list[Cell], digits: int = 2) -> list[str]:
    """What each cell says; those with the best mean in bold."""
    best = max((c.mean for c in cells if c.by_seed), default=None)
    return [f"**{c.text(digits)}**" if c.by_seed and c.mean == best else c.text(digits) for c in cells]


def cells_of(
    rows: Rows, network: str, structure: str, sparsity: float, methods: tuple[str, ...]
) -> dict[str, Cell]:
    """Method -> its cell; SMART as published comes second."""
    found = {}
    for method in methods:
        found[method] = Cell.of(rows, tuned(rows, network, structure, sparsity, method, 0))
        if method == "smart":
            keys = tuned(rows, network, structure, sparsity, method, 0, PUBLISHED)
            found[AS_PUBLISHED] = Cell.of(rows, keys)
    return found


def compared(rows: Rows) -> list[str]:
    """The final accuracies of :func:`first_rows`, to one decimal, the best channels first."""
    found = [cells_of(rows, *place, COLUMNS) for place in FIRST]
    shown = [best_in_bold(list(cells.values()), 1) for cells in found]
    lines = [list(line) for line in zip(found[0], *shown, strict=True)]
    lines.sort(key=lambda line: -found[0][line[0]].mean)
    return markdown(["method", "50 % of channels", "70 % in 16x8 blocks"], lines)


def first_rows(rows: Rows) -> list[str]:
    """ResNet-20: the final accuracy, and what masks alone leave."""
    lines = []
    found = [cells_of(rows, *place, COLUMNS) for place in FIRST]
    for method in found[0]:
        line = [method]
        for cells in found:
            cell = cells[method]
            line += [cell.text(), cell.hardened(), "" if method == "smart" else verdict(cells["smart"], cell)]
        seconds = [s for cells in found for s in cells[method].seconds]
        lines.append([*line, f"{sum(seconds) / len(seconds):.0f}" if seconds else ""])
    head = [
        "method",
        "channels 50 %",
        "after hardening",
        "smart against it",
        "blocks 70 %",
        "after hardening",
        "smart against it",
        "seconds",
    ]
    return markdown(head, lines)


def table2(rows: Rows) -> list[str]:
    """Blocks."""
    return contest(rows, [(n, BLOCK, s) for n in PRUNED for s in BLOCKS], COLUMNS)


def table3(rows: Rows) -> list[str]:
    """Channels."""
    return contest(rows, [(n, "channel", s) for n in PRUNED for s in CHANNELS], COLUMNS)


def table4(rows: Rows) -> list[str]:
    """2:4."""
    return contest(rows, [(n, "2:4", 0.5) for n in TRANSFORMERS], COLUMNS[:-1])


def later(rows: Rows) -> list[str]:
    """High sparsity."""
    places = [(n, BLOCK, s) for n in LATER for s in ((0.3, *HIGH) if n == "resnet18" else HIGH)]
    return contest(rows, places, COLUMNS)


def temperatures(rows: Rows) -> list[str]:
    """First temperatures down, last ones across."""
    lines = []
    for first in INIT_TEMPS:
        line = [f"{first:g}"]
        for last in FINAL_TEMPS:
            more = (f"init-temp={first:g}", f"final-temp={last:g}")
            line.append(Cell.of(rows, tuned(rows, "resnet18", BLOCK, 0.9, "smart", 0, more)).text())
        lines.append(line)
    return markdown(["first \\ last", *(f"{t:g}" for t in FINAL_TEMPS)], lines)


def curves(rows: Rows) -> list[str]:
    """Accuracy against sparsity."""
    lines = [[m, *(Cell.of(rows, curve_row(rows, s, m)).text() for s in CURVE)] for m in CURVE_METHODS]
    return markdown(["method", *(f"{100 * s:g} %" for s in CURVE)], lines)


def ablations(rows: Rows) -> list[str]:
    """What each part of SMART is worth."""
    lines = []
    whole = Cell.of(rows, tuned(rows, "resnet20", "channel", 0.5, "smart", 0))
    for title, more in ABLATIONS.items():
        cell = Cell.of(rows, tuned(rows, "resnet20", "channel", 0.5, "smart", 0, more))
        lines.append([title, cell.text(), cell.hardened(), verdict(cell, whole) if more else ""])
    return markdown(["SMART, channels 50 %", "accuracy", "after hardening", "against the first line"], lines)


def suspects(rows: Rows) -> list[str]:
    """Changes of SMART where it is behind, against SMART without them."""
    lines = []
    for suspect in SUSPECTS:
        as_it_is, changed = (Cell.of(rows, suspect.keys(rows, 0, more)) for more in ((), suspect.more))
        what = "channels" if suspect.structure == "channel" else "blocks"
        where = f"{NETWORKS[suspect.network].title}, {what} {100 * suspect.sparsity:g} %, {suspect.split}"
        lines.append([where, suspect.title, as_it_is.text(), changed.text(), verdict(changed, as_it_is)])
    return markdown(["where", "change", "as it is", "changed", "what the change does"], lines)


def trials(rows: Rows) -> list[str]:
    """Every trial of the tuning, on validation images."""
    lines = []
    for place in tuning.PLACES.values():
        for method in tuning.METHODS:
            keys = tuning.trials(place, method, rows)
            tried = [(k, rows.by_key[k][FINAL]) for k in keys if k in rows.by_key]
            if not tried:
                continue
            best = max(value for _, value in tried)
            shown = [
                f"{'**' if v == best else ''}{' '.join(k.settings)}: {100 * v:.2f}{'**' if v == best else ''}"
                for k, v in tried
            ]
            lines.append([NETWORKS[place.network].title, method, "; ".join(shown)])
    return markdown(["network", "method", "settings: validation, %"], lines)


def wall_time(rows: Rows) -> list[str]:
    """Seconds of a row on one core, evaluation and proof included: the median over everything that ran."""
    lines = []
    for name, network in NETWORKS.items():
        ran = [
            (k.method, r) for k, r in rows.by_key.items() if k.network == name and k.steps == network.steps
        ]
        for amp in sorted({r["amp"] for _, r in ran}):
            seconds = [(method, r["seconds"]) for method, r in ran if r["amp"] == amp]
            by_method = {m: [s for other, s in seconds if other == m] for m in COLUMNS}
            line = [f"{statistics.median(s):.0f}" if s else "" for s in by_method.values()]
            lines.append([network.title, PRECISIONS[amp], *line])
    return markdown(["seconds", "precision", *COLUMNS], lines)


def dense(rows: Rows) -> list[str]:
    """The networks before pruning."""
    lines = [
        [
            NETWORKS[r["network"]].title,
            NETWORKS[r["network"]].task.name,
            f"{r['parameters'] / 1e6:.2f} M",
            str(r["epochs"]),
            PRECISIONS[r["amp"]],
            f"{100 * r['test']:.2f}",
            str(r["seconds"]),
        ]
        for r in read(RESULTS / "dense.jsonl")
    ]
    return markdown(["network", "data", "parameters", "epochs", "precision", "test, %", "seconds"], lines)


def totals(rows: Rows) -> list[str]:
    """How many rows, where and when."""
    every: list[dict[str, Any]] = list(rows.by_key.values())
    if not every:
        return ["No row yet."]
    machines = ", ".join(sorted({r["machine"] for r in every}))
    dates = sorted({r["date"] for r in every})
    worst = max(r["proof"] for r in every)
    hours = sum(r["seconds"] for r in every) / 3600
    cut = sum(bool(r.get("vacuous")) for r in every)
    return [
        f"{len(every)} rows, {dates[0]} to {dates[-1]}, on {machines}, {hours:.1f} hours of one core together. All are",
        f"proved: masked original and pruned network differ by {worst:.1e} at most ({cut} cut through: equality says",
        "little, for nothing in its answer depends on the image).",
    ]


TABLES: dict[Path, dict[str, Callable[[Rows], list[str]]]] = {
    README: {
        "first rows": first_rows,
        "table 2": table2,
        "table 3": table3,
        "table 4": table4,
        "later": later,
        "temperatures": temperatures,
        "curves": curves,
        "ablations": ablations,
        "suspects": suspects,
        "tuning": trials,
        "wall time": wall_time,
        "dense": dense,
        "totals": totals,
    },
    FRONT: {"compared": compared},
}
