"""What every field of a plan's JSON may hold: types and ranges, as far as they can be told without the model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from graphprune.errors import PlanError
from graphprune.notation import STRUCTURES

Check = Callable[[Any], bool]

_LARGEST = 2**63
_AXIS = re.compile(r"\d{1,2}", re.ASCII)


def check_fields(data: Mapping[str, Any]) -> None:
    """Raises PlanError, naming the field, for a value of another type or out of range; unknown fields are left out."""
    for name, value in data.items():
        check, what = _FIELDS.get(name, (_anything, ""))
        if not check(value):
            raise PlanError(
                f"the plan's {name!r} is not {what}: it is damaged, or was not written by graphprune"
            )


def _anything(value: Any) -> bool:
    return True


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _size(value: Any) -> bool:
    return _count(value) and value > 0


def _number(value: Any) -> bool:
    return (isinstance(value, float) and math.isfinite(value)) or _count(value)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _axis(value: Any) -> bool:
    return isinstance(value, str) and _AXIS.fullmatch(value) is not None


def _list(item: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(item, value))


def _distinct(value: Any) -> bool:
    return _list(_count)(value) and len(set(value)) == len(value)


def _positions(value: Any) -> bool:
    """A list of positions, or one of equal length for every group."""
    if not isinstance(value, list) or not any(isinstance(v, list) for v in value):
        return _distinct(value)
    return all(map(_distinct, value)) and len({len(v) for v in value}) == 1


def _map(item: Check, key: Check = _text) -> Check:
    return lambda value: isinstance(value, dict) and all(key(k) and item(v) for k, v in value.items())


def _record(fields: Mapping[str, Check], *, empty: bool = True) -> Check:
    """An object with these fields and no others; or, where ``empty``, none of them."""

    def check(value: Any) -> bool:
        if not isinstance(value, dict) or (not value and not empty):
            return False
        return not value or (set(value) == set(fields) and all(fields[k](v) for k, v in value.items()))

    return check


def _one_of(*texts: str) -> Check:
    return lambda value: isinstance(value, str) and value in texts


_BUDGET = _record({"kind": _text, "requested": _number, "achieved": _number})
_LATENCY = _record(
    {
        "kind": _one_of("latency"),
        "requested": _number,
        "achieved": _number,
        "measured": _list(_number),
        "threads": _count,
        "provider": _text,
        "onnxruntime": _text,
        "machine": _text,
    }
)
_ANALYSIS = _record({"attention": _text, "allow_inexact": _truth, "input_shapes": _map(_list(_size))})
_BLOCKS = _map(_record({"shape": _list(_size), "kept": _distinct}, empty=False))
_PATTERNS = _map(_record({"keep": _size, "of": _size, "axis": _count}, empty=False))
_BRANCH = _record({"node": _text, "value": _text, "removed": _text}, empty=False)

_FIELDS: dict[str, tuple[Check, str]] = {
    "source_sha256": (_text, "a text"),
    "structure": (_one_of(*STRUCTURES), "one of " + ", ".join(STRUCTURES)),
    "method": (_text, "a text"),
    "seed": (_count, "a whole number"),
    "weights": (_text, "a text"),
    "budget": (
        lambda value: _BUDGET(value) or _LATENCY(value),
        "kind, requested and achieved, with what a latency was measured on",
    ),
    "removed": (_map(_map(_positions, _axis)), "lists of positions, by tensor and axis"),
    "contracted": (_map(_distinct), "lists of axes, by tensor"),
    "gates": (_map(_map(_distinct, _axis)), "lists of positions, by value and axis"),
    "kept_only": (_map(_map(_distinct, _axis)), "lists of positions, by node and axis"),
    "blocks": (_BLOCKS, "shape and kept, by tensor"),
    "patterns": (_PATTERNS, "keep, of and axis, by tensor"),
    "pattern": (_text, "a text"),
    "branches": (_list(_BRANCH), "a list with node, value and removed"),
    "freed": (_map(_count), "counts by name"),
    "calibration": (_map(_anything), "an object"),
    "analysis": (_ANALYSIS, "attention, allow_inexact and input_shapes"),
    "renamed": (_map(_text), "names by name"),
    "added": (_map(_text), "texts by name"),
    "params": (_map(_count), "counts by name"),
    "macs": (_map(_count), "counts by name"),
    "fidelity": (_map(_anything), "an object"),
    "version": (_count, "a whole number"),
}
