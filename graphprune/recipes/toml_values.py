"""Values between a TOML file and the type annotations of flags."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any


def fit(value: Any, kind: Any) -> Any:
    """``value`` as ``kind``, the type annotation of a flag; a text may be given as numbers.

    ``kind`` is bool, int, float, str, Path, an Enum, a list of texts, or one of these with None.
    Raises ValueError, whose text is what to give instead.
    """
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kind = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    if typing.get_origin(kind) is list:
        return _texts(value)
    if issubclass(kind, Enum):
        return _choice(value, kind)
    return _KINDS[kind](value)


def to_toml(value: Any) -> str:
    """``value`` (a text, number, boolean, choice, path, or a list of them) as TOML writes it."""
    if isinstance(value, Enum):
        return to_toml(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("a whole number")


def _number(value: Any) -> float:
    try:
        if _is_number(value):
            return float(value)
    except OverflowError:  # an integer of hundreds of digits
        pass
    raise ValueError("a number")


def _text(value: Any) -> str:
    if isinstance(value, (str, Path)) or _is_number(value):
        return str(value)
    if isinstance(value, (list, tuple)) and value and all(map(_is_number, value)):
        return ",".join(map(str, value))
    raise ValueError("a text in quotes")


def _texts(value: Any) -> list[str]:
    given = [value] if isinstance(value, str) else value
    if isinstance(given, (list, tuple)) and all(isinstance(v, str) for v in given):
        return list(given)
    raise ValueError("a list of texts")


def _choice(value: Any, kind: type[Enum]) -> Enum:
    for choice in kind:
        if value in (choice, choice.value):
            return choice
    raise ValueError("one of " + ", ".join(str(choice.value) for choice in kind))


_KINDS: dict[Any, Callable[[Any], Any]] = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _text,
    Path: lambda value: Path(_text(value)),
}
