"""HTML from data: every text goes through ``text``, so that a name from a model never becomes markup."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """What a table shows in one place: its text, what it sorts by (None: the text), and a group to jump to.

    tint: 0 to 1, how strongly the background is coloured. node: name of the graph's node that a click selects.
    """

    shown: str
    sort: float | None = None
    tint: float | None = None
    node: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table. kind: text, number (stands right), name and reason (long, get room) or shape
    (never broken)."""

    title: str
    kind: str = "text"


def text(content: object) -> str:
    """Escaped for elements and attributes."""
    return html.escape(str(content), quote=True)


def element(name: str, inner: str, **attributes: object) -> str:
    """``inner`` is markup already; attributes are text (``class_`` is ``class``, ``_`` is ``-``)."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    return f"<{name}{written}>{inner}</{name}>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A description list of plain texts."""
    return element("dl", "".join(f"<dt>{text(name)}</dt><dd>{text(said)}</dd>" for name, said in pairs))


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], name: str) -> str:
    """A table whose columns the report's script sorts; ``caption`` is for screen readers."""
    head = "".join(_head(column) for column in columns)
    body = "\n".join(_row(row, columns) for row in rows)
    inner = (
        f'<caption class="unseen">{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}">'
        f"{element('table', inner, id=name)}</div>"
    )


def section(title: str, name: str, inner: str) -> str:
    """A part of the page, with its heading."""
    heading = element("h2", text(title), id=f"{name}-title")
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}\n{inner}</section>\n'


def script_data(content: Any) -> str:
    """JSON that can stand inside a ``<script>``: no ``<``, no line separator of JavaScript."""
    written = json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(column: Column) -> str:
    names = " ".join(_CLASSES.get(column.kind, ()))
    inner = element("button", text(column.title), type="button")
    return element("th", inner, scope="col", aria_sort="none", **({"class_": names} if names else {}))


def _row(row: Sequence[Cell], columns: Sequence[Column]) -> str:
    first, *rest = (
        _cell(cell, column, "th" if i == 0 else "td")
        for i, (cell, column) in enumerate(zip(row, columns, strict=True))
    )
    return f"<tr>{first}{''.join(rest)}</tr>"


def _cell(cell: Cell, column: Column, kind: str) -> str:
    names = [*_CLASSES.get(column.kind, ()), *(["tint"] if cell.tint is not None else [])]
    attributes: dict[str, object] = {"scope": "row"} if kind == "th" else {}
    if names:
        attributes["class_"] = " ".join(names)
    if cell.tint is not None:
        attributes["style"] = f"--tint:{100 * cell.tint:.0f}%"
    if cell.sort is not None:
        attributes["data_sort"] = f"{cell.sort:.12g}"
    return element(kind, _jump(cell), **attributes)


def _jump(cell: Cell) -> str:
    target = {"data_node": cell.node, "data_group": cell.group}
    given = {key: value for key, value in target.items() if value is not None}
    inner = text(cell.shown)
    return element("button", inner, type="button", class_="jump", **given) if given else inner


_CLASSES = {"number": ("right",), "name": ("name",), "shape": ("shape",), "reason": ("reason",)}
