"""A comparison as one HTML page of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphprune.comparing.figures import difference_rows, summary_rows
from graphprune.reporting.markup import Cell, Column, facts, section, table, text
from graphprune.reporting.page import document


def comparison_page(found: Mapping[str, Any]) -> str:
    """``found``: what ``compare --json`` prints."""
    first, second = found["first"], found["second"]
    top = facts(
        [("first", first), ("second", second), ("inputs", f"{found['samples']} samples of {found['inputs']}")]
    )
    top += "".join(f'<p class="note">{text(note)}</p>' for note in found["notes"])
    columns = [Column("", "name"), *(Column(t, "number") for t in ("first", "second", "second of first"))]
    cost = table(
        "What the models cost", columns, [[Cell(c) for c in row] for row in summary_rows(found)], "cost"
    )
    titles = ("max abs", "mean abs", "max rel", "mean rel", "cosine", "top-1 agreement", "not finite")
    columns = [Column("output", "name"), *(Column(t, "number") for t in titles)]
    apart = table(
        "How far outputs are apart",
        columns,
        [[Cell(c) for c in row] for row in difference_rows(found)],
        "apart",
    )
    body = section("Cost", "costs", cost) + section("Outputs", "outputs", apart)
    return document("Comparison", f"{_name(first)} and {_name(second)}", top, body)


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
