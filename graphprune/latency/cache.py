"""What was measured of this machine, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = 1
"""Changes when the same name stands for another measurement."""


def cache_file(told: Mapping[str, Any]) -> Path:
    """Where figures for an engine and machine (``Engine.to_dict``) are kept: below ``$XDG_CACHE_HOME`` or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or ""
    base = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
    key = hashlib.sha256(json.dumps([VERSION, told], sort_keys=True).encode()).hexdigest()[:16]
    return base / "graphprune" / f"latency-{key}.json"


def read(told: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by name; nothing where there is no such file, or it cannot be read."""
    try:
        content = json.loads(cache_file(told).read_text(encoding="utf-8"))
        found = content["seconds"]
        return {str(k): float(v) for k, v in found.items() if float(v) > 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def add(told: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
    """Keep more figures. A folder that takes no files is no error: the next call measures again."""
    path = cache_file(told)
    content = {"version": VERSION, **told, "seconds": read(told) | dict(seconds)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=0, sort_keys=True)
        os.replace(temporary, path)
    except OSError:
        return
