"""Arguments of a traced ATen call by the names of the operator's schema."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

_NAMES = {"self": "x", "input": "x"}


def schema_of(node: fx.Node) -> torch.FunctionSchema | None:
    """The schema of an ATen call, None for other nodes."""
    return node.target._schema if isinstance(node.target, torch._ops.OpOverload) else None


def operator_name(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``; other functions keep their module (``_operator.getitem``)."""
    if isinstance(node.target, torch._ops.OpOverload):
        name = str(node.target.overloadpacket)
        return name.removeprefix("aten.")
    return f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__name__', node.target)}"


def bound(node: fx.Node) -> dict[str, Any]:
    """Every argument of an ATen call, defaults included; ``self`` and ``input`` are called ``x``."""
    schema = schema_of(node)
    assert schema is not None
    found: dict[str, Any] = {}
    for index, argument in enumerate(schema.arguments):
        if index < len(node.args) and not argument.kwarg_only:
            value: Any = node.args[index]
        elif argument.name in node.kwargs:
            value = node.kwargs[argument.name]
        else:
            value = argument.default_value if argument.has_default_value() else None
        found[_NAMES.get(argument.name, argument.name)] = value
    return found


def set_argument(node: fx.Node, name: str, value: Any) -> None:
    """Replace one argument, by its name in the schema."""
    schema = schema_of(node)
    assert schema is not None
    for index, argument in enumerate(schema.arguments):
        if _NAMES.get(argument.name, argument.name) != name:
            continue
        if argument.kwarg_only:
            node.update_kwarg(argument.name, value)
            return
        for missing in range(len(node.args), index):
            given = schema.arguments[missing]
            old = node.kwargs.get(given.name, given.default_value)
            node.kwargs = {k: v for k, v in node.kwargs.items() if k != given.name}
            node.args = (*node.args, old)
        node.kwargs = {k: v for k, v in node.kwargs.items() if k != argument.name}
        node.args = (*node.args[:index], value, *node.args[index + 1 :])
        return
    raise KeyError(name)
