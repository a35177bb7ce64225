"""JSON schemas (draft 2020-12) of everything that is written as JSON: one file each, ``NAME.schema.json``."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from graphprune.lookup import lookup

ENDING = ".schema.json"


def schema_names() -> list[str]:
    """Of all schemas."""
    found = (f.name for f in files("graphprune.schemas").iterdir())
    return sorted(name.removesuffix(ENDING) for name in found if name.endswith(ENDING))


def schema(name: str) -> dict[str, Any]:
    """The schema of what command ``name`` writes with --json; ``plan``: of prune, apply and OUT.plan.json; ``blocks``:
    of the index in OUT.blocks.npz.

    Raises OptionError, with the nearest name, for an unknown one.
    """
    known = {n: n for n in schema_names()}
    file = files("graphprune.schemas").joinpath(lookup(known, name, "schema") + ENDING)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


__all__ = ["schema", "schema_names"]
