"""The one place that prints: data goes to stdout, notes and errors to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

UNSIZED_WIDTH = 110
"""Columns where the output is no terminal and COLUMNS is not set."""

NARROWEST = 8
NARROWEST_PROSE = 24
"""A column is not made smaller than this."""


@dataclass(frozen=True)
class Column:
    """A table column. Where the terminal is narrow, ``flexible`` ones give way with an ellipsis, and ``prose``
    goes on in the next line."""

    title: str
    right: bool = False
    flexible: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Style:
    """How a command prints. ``quiet``: errors and data alone. ``plain``: no colours and no bold letters.

    ``before`` is called before anything is printed, so that what moves on the terminal makes room.
    """

    quiet: bool = False
    plain: bool = False
    before: Callable[[], None] = lambda: None


_USUAL = Style()
_STYLE: ContextVar[Style] = ContextVar("style")


@contextmanager
def styled(style: Style) -> Iterator[None]:
    """Print so inside of a ``with`` statement."""
    token = _STYLE.set(style)
    try:
        yield
    finally:
        _STYLE.reset(token)


def wants_plain() -> bool:
    """Whether the environment asks for no colours: NO_COLOR (no-color.org), or a terminal that has none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "") in ("dumb", "unknown")


def text(line: str = "") -> None:
    """One line of the report."""
    if _silent():
        return
    sys.stdout.write(printable(line) + "\n")


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and what they are, one per line, in two columns."""
    rows = list(pairs)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        text(f"{name:{width}}  {value}")


def table(title: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """A table as wide as the terminal allows; nothing where there are no rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    content = [tuple(map(printable, row)) for row in rows]
    if not content or _silent():
        return
    console = _console(sys.stdout)
    cells = zip(*[[c.title for c in columns], *content], strict=True)
    widths = _fit(
        [max(map(len, column)) for column in cells], columns, console.width - 3 * (len(columns) - 1)
    )
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        drawn.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=not column.prose,
            overflow="fold" if column.prose else "ellipsis",
            width=width,
        )
    for row in content:
        drawn.add_row(*(Text(cell) for cell in row))
    text()
    console.print(Text(printable(title), "bold"))
    console.print(drawn)


def _fit(widths: list[int], columns: Sequence[Column], available: int) -> list[int]:
    """Take from the widest column that gives way until the table fits."""
    least = {
        i: NARROWEST_PROSE if column.prose else NARROWEST
        for i, column in enumerate(columns)
        if column.flexible or column.prose
    }
    while sum(widths) > available:
        giving = [i for i, narrowest in least.items() if widths[i] > narrowest]
        if not giving:
            break
        widths[max(giving, key=lambda i: widths[i])] -= 1
    return widths


def note(sentence: str) -> None:
    """Something the user should know; never mixed into the data."""
    if _silent():
        return
    sys.stderr.write(f"note: {_one_line(sentence)}\n")


def progress(line: str) -> None:
    """How far a long run has come, as a line of a log."""
    if _STYLE.get(_USUAL).quiet:
        return
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def error(sentence: str) -> None:
    """Why the command ends without its result."""
    _STYLE.get(_USUAL).before()
    sys.stderr.write(f"graphprune: {_one_line(sentence)}\n")


def data(content: Mapping[str, Any] | str, target: str) -> None:
    """JSON, to stdout where ``target`` is ``-``, else to that file (replaced whole)."""
    rendered = content if isinstance(content, str) else json.dumps(content, indent=1, allow_nan=False) + "\n"
    if target == "-":
        _STYLE.get(_USUAL).before()
        sys.stdout.write(rendered)
        return
    from graphprune.writing import write_text

    write_text(Path(target), rendered, force=True)


def page(content: str, target: Path, *, force: bool) -> None:
    """An HTML report. Raises OptionError where it cannot be written, or ``target`` exists (no ``force``)."""
    from graphprune.writing import write_text

    write_text(target, content, force=force)


def number(value: float) -> str:
    """Three significant digits with K, M or G: ``272474`` -> ``272 K``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def percent(part: float, whole: float) -> str:
    """``part`` of ``whole``, to a tenth of a percent; ``-`` of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def plural(count: int, noun: str) -> str:
    """``1 group``, ``2 groups``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(line: str) -> str:
    """Names come from files: what would move the cursor, or is not text at all, is written as Python escapes it."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def _one_line(sentence: str) -> str:
    return printable(" ".join(sentence.split()))


def _silent() -> bool:
    """Whether nothing is to be printed; if something is, there is room for it then."""
    style = _STYLE.get(_USUAL)
    if not style.quiet:
        style.before()
    return style.quiet


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    sized = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        file=stream,
        width=None if sized else UNSIZED_WIDTH,
        highlight=False,
        color_system=None if _STYLE.get(_USUAL).plain else "auto",
    )
