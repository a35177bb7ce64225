"""The table of ATen operators. A converter is one short function; registering it is one decorator.

A converter takes ``(conversion, **arguments)``: the operator's arguments under the names of its schema (``self``
and ``input`` are called ``x``), tensors as ONNX values. It returns the value of its output, or a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import onnx_ir as ir

Result = ir.Value | Sequence[ir.Value]
ConverterFunction = Callable[..., Result]
F = TypeVar("F", bound=ConverterFunction)

_CONVERTERS: dict[str, ConverterFunction] = {}


def operator(*names: str) -> Callable[[F], F]:
    """Register a converter for ATen operators by the names of their packets (``conv2d``), all overloads at once.

    Raises ValueError when an operator already has one.
    """

    def register(function: F) -> F:
        for name in names:
            if name in _CONVERTERS:
                raise ValueError(f"{name} already has a converter")
            _CONVERTERS[name] = function
        return function

    return register


def find_converter(name: str) -> ConverterFunction | None:
    """The converter of an operator, or None: a model that needs it is refused."""
    return _CONVERTERS.get(name)


def all_converters() -> dict[str, ConverterFunction]:
    """Every registered converter by operator name."""
    return dict(_CONVERTERS)
