"""Methods that choose residual branches: one function each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from graphprune.branches.removal import Chosen, Removal
from graphprune.lookup import lookup
from graphprune.running import Feed


@dataclass(frozen=True, eq=False)
class Question:
    """What a method looks at: the model, its branches with the budget (``removal``), and inputs where it needs them."""

    model: ir.Model
    removal: Removal
    feeds: list[Feed]


Choice = Callable[[Question], Chosen]


@dataclass(frozen=True)
class BranchMethod:
    """A named choice. ``looks``: whether it needs inputs. ``note``: what the user should know about the result."""

    name: str
    choose: Choice
    summary: str
    citation: str
    looks: bool
    note: str = ""


_METHODS: dict[str, BranchMethod] = {}


def branch_method(name: str, *, citation: str, looks: bool, note: str = "") -> Callable[[Choice], Choice]:
    """Register a choice; the first line of its docstring is the summary. Raises ValueError when the name is taken."""

    def register(function: Choice) -> Choice:
        if name in _METHODS:
            raise ValueError(f"there is a method {name!r} for branches already")
        summary = (inspect.getdoc(function) or "").split("\n")[0].rstrip(".")
        _METHODS[name] = BranchMethod(name, function, summary, citation, looks, note)
        return function

    return register


def find_method(name: str) -> BranchMethod:
    """Raises OptionError, with the nearest name, for an unknown one."""
    return lookup(_METHODS, name, "method for --structure branch")


def all_branch_methods() -> dict[str, BranchMethod]:
    """Every method by name."""
    return dict(_METHODS)
