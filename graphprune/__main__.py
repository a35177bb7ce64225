"""``python -m graphprune``: the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


def command_line() -> Callable[..., int]:
    """The program: the installed ``graphprune_cli``, or the folder ``cli`` of a checkout nobody installed."""
    if importlib.util.find_spec("graphprune_cli") is None:
        _load_package("graphprune_cli", Path(__file__).resolve().parents[1] / "cli")
    main: Callable[..., int] = importlib.import_module("graphprune_cli.app").main
    return main


def _load_package(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").exists():
        raise ModuleNotFoundError(f"{name} is not installed: pip install graphprune")
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return package


if __name__ == "__main__":
    sys.exit(command_line()())
