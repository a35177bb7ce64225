"""Where the real data are."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from tests.benchmarks.trained import SHARED


def reader() -> ModuleType:
    """``datasets.py`` of the data folder. Raises SystemExit where it is absent."""
    path = SHARED / "data" / "datasets.py"
    if not path.exists():
        raise SystemExit(f"{path} is missing: these experiments need the real data")
    spec = importlib.util.spec_from_file_location("datasets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
