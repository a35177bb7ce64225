"""Finding something by a name that a person typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from graphprune.errors import OptionError

T = TypeVar("T")


def hint(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of a sentence about an unknown name: the nearest one, else ``otherwise`` or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else otherwise or "known are " + ", ".join(known)


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """``table[name]``. Raises OptionError, with the nearest name, for an unknown one."""
    if name not in table:
        raise OptionError(f"unknown {what} {name!r}: {hint(name, table)}")
    return table[name]
