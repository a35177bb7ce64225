"""The table of operator rules. A rule is one short function; registering it is one decorator.

A rule takes ``(coupler, node, *labels of the inputs)``, with None for an absent input, and returns the
labels of its output (or a sequence, one per output).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from graphprune.labels import Labels

T = TypeVar("T")
RuleFunction = Callable[..., Labels | Sequence[Labels]]


@dataclass(frozen=True)
class Rule:
    """``settle``: inputs must vary along one axis per term; pure movement operators need not.

    ``weights``: labels follow stored tensors through the operator, so that the original is sliced;
    otherwise a constant that the operator computes becomes a stored tensor of its own.
    ``sizes``: the input that holds sizes of the output, which pruning rewrites: where they are only known at
    run time, everything stays.
    """

    function: RuleFunction
    settle: bool
    weights: bool
    sizes: int | None
    summary: str
    family: str
    _mandatory: tuple[bool, ...]
    _rest: bool

    def lacks(self, inputs: Sequence[object | None]) -> bool:
        """Whether one of ``inputs`` that the operator must have is None."""
        longer = (*self._mandatory, *([self._rest] * len(inputs)))
        return any(x is None and must for x, must in zip(inputs, longer, strict=False))


_RULES: dict[str, Rule] = {}


def rule(
    *operators: str, settle: bool = True, weights: bool = False, sizes: int | None = None
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for ``operators`` (ONNX names, ``domain::Name`` outside the standard domain).

    Raises ValueError when an operator already has one.
    """

    def register(function: RuleFunction) -> RuleFunction:
        summary = (inspect.getdoc(function) or "").split("\n")[0]
        family = function.__module__.rsplit(".", 1)[-1]
        mandatory, rest = _operands(function)
        for operator in operators:
            if operator in _RULES:
                raise ValueError(f"{operator} already has a rule")
            _RULES[operator] = Rule(function, settle, weights, sizes, summary, family, mandatory, rest)
        return function

    return register


def _operands(function: RuleFunction) -> tuple[tuple[bool, ...], bool]:
    """Which operands a rule's signature says are never None: the named ones, and those of ``*operands``."""
    named, rest = [], False
    for parameter in list(inspect.signature(function).parameters.values())[2:]:
        must = parameter.annotation == "Labels"
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            rest = must
        else:
            named.append(must)
    return tuple(named), rest


def find_rule(operator: str) -> Rule | None:
    """The rule of an operator, or None: its inputs are then frozen."""
    return _RULES.get(operator)


def all_rules() -> dict[str, Rule]:
    """Every registered rule by operator name."""
    return dict(_RULES)


def operand(x: T | None) -> T:
    """``x`` itself, for an input that the operator's definition makes mandatory."""
    if x is None:
        raise ValueError("a mandatory input is missing")
    return x
