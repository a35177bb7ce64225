"""The table of rewrite rules. A rule is one short function; registering it is one decorator.

A rule takes ``(node, context)``, looks at one node, and returns the values that take the place of the node's
outputs, in their order; None where the node is not what it looks for. It builds them with ``context`` and
changes nothing before it is sure. It raises Refused, with a reason, for a node that it is meant for and
cannot replace by an equal graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphprune.lookup import lookup
from graphprune.rewriting.context import Context

RewriteFunction = Callable[[ir.Node, Context], Sequence[ir.Value] | None]


@dataclass(frozen=True)
class RewriteRule:
    """One entry of the table.

    replaces: operators that the rule removes. It runs for a target that lacks one of them, or by name.
    visits: operators of the nodes that it is shown. Where they are not ``replaces`` themselves, the rule
        tidies up what other rules for the same operators left behind.
    """

    name: str
    replaces: tuple[str, ...]
    visits: tuple[str, ...]
    function: RewriteFunction
    summary: str


_RULES: dict[str, RewriteRule] = {}


def rewrite_rule(
    name: str, replaces: Sequence[str], visits: Sequence[str] | None = None
) -> Callable[[RewriteFunction], RewriteFunction]:
    """Register a rule under ``name``; see RewriteRule. Rules run in the order in which they are registered.

    Operators are ONNX names, ``domain::Name`` outside the standard domain. Raises ValueError when the name
    is taken.
    """

    def register(function: RewriteFunction) -> RewriteFunction:
        if name in _RULES:
            raise ValueError(f"there is a rewrite rule {name!r} already")
        summary = (inspect.getdoc(function) or "").split("\n")[0]
        shown = tuple(replaces if visits is None else visits)
        _RULES[name] = RewriteRule(name, tuple(replaces), shown, function, summary)
        return function

    return register


def find_rewrite_rule(name: str) -> RewriteRule:
    """Raises OptionError, with the nearest name, for an unknown one."""
    return lookup(_RULES, name, "rewrite rule")


def all_rewrite_rules() -> dict[str, RewriteRule]:
    """Every registered rule by name, in the order in which they run."""
    return dict(_RULES)
