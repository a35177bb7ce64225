"""MODEL as people write it: an ONNX file, or ``package.module:factory``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    from graphprune.api import Model

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_factory(given: Path) -> bool:
    """Whether MODEL names a Python function."""
    return _FACTORY.fullmatch(str(given)) is not None and not given.exists()


def open_model(given: Path, shapes: Sequence[str] | None) -> tuple[Model, dict[str, tuple[int, ...]]]:
    """The model, and the input shapes that its analysis is told. ``shapes``: --input-shape as given.

    A factory returns an nn.Module, or (module, example inputs). Raises OptionError, ModelError, ConversionError.
    """
    from graphprune import api

    if not is_factory(given):
        return api.load(given), options.input_shapes(shapes)
    return api.load(*_made(str(given), shapes)), {}


def _made(spec: str, shapes: Sequence[str] | None) -> tuple[Any, Any]:
    from graphprune.errors import OptionError
    from graphprune.python_functions import import_function

    factory = import_function(f"python:{spec}", "MODEL")
    try:
        import torch
    except ImportError:
        raise OptionError(
            f"MODEL {spec} is a Python function, which needs PyTorch: pip install torch"
        ) from None
    torch.manual_seed(0)
    try:
        made = factory()
    except Exception as error:
        raise OptionError(f"MODEL {spec} failed with {type(error).__name__}: {error}") from error
    module, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise OptionError(f"MODEL {spec} returned {type(module).__name__}: it must return an nn.Module")
    sizes = options.plain_shapes(shapes)
    if sizes:
        example = tuple(torch.randn(*size) for size in sizes)
    if example is None:
        raise OptionError(f"MODEL {spec} is a PyTorch module: give --input-shape 1,3,224,224")
    return module, example
