"""``python:package.module:function``: what a user plugs in without touching graphprune."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from graphprune.errors import OptionError

PREFIX = "python:"


def import_function(spec: str, flag: str) -> Callable[..., Any]:
    """``python:package.module:function`` -> the function; ``flag`` ("--loss") is named in errors.

    The current folder is searched too, as ``python -m`` does. Raises OptionError.
    """
    module_name, colon, name = spec.removeprefix(PREFIX).partition(":")
    if not (colon and module_name and name):
        raise OptionError(f"{flag} {spec}: write python:package.module:function")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise OptionError(
            f"{flag} {spec}: importing {module_name} failed with {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise OptionError(f"{flag} {spec}: module {module_name} has no function {name}")
    found: Callable[..., Any] = function
    return found
