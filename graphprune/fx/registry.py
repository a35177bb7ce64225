"""The table of operator converters. A converter is one short function; registering it is one decorator.

A converter takes ``(conversion, node, *fx nodes of the inputs)``, with None for an absent input, and returns
the fx node of its output (or a sequence, one per output; outputs that nobody reads may be left out).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx

if TYPE_CHECKING:
    from graphprune.fx.conversion import Conversion
    from graphprune.graph import Node

ConverterFunction = Callable[..., "fx.Node | Sequence[fx.Node | None]"]


@dataclass(frozen=True)
class Converter:
    """``literals``: positions of inputs that the converter reads as data; it is given None there.

    ``arithmetic``: a stored operand of one element is a constant of the formula (an epsilon, 1/sqrt(d)),
    not a weight to be trained.
    """

    function: ConverterFunction
    literals: frozenset[int]
    arithmetic: bool
    summary: str
    family: str


_CONVERTERS: dict[str, Converter] = {}


def converter(
    *operators: str, literals: Sequence[int] = (), arithmetic: bool = False
) -> Callable[[ConverterFunction], ConverterFunction]:
    """Register a converter for ``operators`` (ONNX names, ``domain::Name`` outside the standard domain).

    Raises ValueError when an operator already has one.
    """

    def register(function: ConverterFunction) -> ConverterFunction:
        summary = (inspect.getdoc(function) or "").split("\n")[0]
        family = function.__module__.rsplit(".", 1)[-1]
        entry = Converter(function, frozenset(literals), arithmetic, summary, family)
        for operator in operators:
            if operator in _CONVERTERS:
                raise ValueError(f"{operator} already has a converter")
            _CONVERTERS[operator] = entry
        return function

    return register


def register_functions(table: Mapping[str, Callable[..., Any]]) -> None:
    """One converter for each elementwise operator that is one torch function of its operands."""
    for operator, function in table.items():

        def convert(
            c: Conversion, n: Node, *operands: fx.Node, function: Callable[..., Any] = function
        ) -> fx.Node:
            return c.emit(function, *operands)

        convert.__doc__ = f"``{function.__name__}`` of the operands."
        converter(operator, arithmetic=True)(convert)


def find_converter(operator: str) -> Converter | None:
    """The converter of an operator, or None: a model that needs it is refused."""
    return _CONVERTERS.get(operator)


def all_converters() -> dict[str, Converter]:
    """Every registered converter by operator name."""
    return dict(_CONVERTERS)
