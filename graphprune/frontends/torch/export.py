"""nn.Module -> a traced GraphModule: ``torch.export``, with a batch of any size where the module allows it."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprune.errors import ConversionError
from graphprune.frontends.torch.arguments import operator_name
from graphprune.frontends.torch.evaluating import evaluating
from graphprune.frontends.torch.layers import separate_layers
from graphprune.frontends.torch.regions import inline_regions
from graphprune.frontends.torch.views import replace_partial_writes


@dataclass(frozen=True)
class Traced:
    """A module as a graph of ATen calls.

    ``module``: parameters and buffers under their original names, forward called like the original.
    ``dynamic``: whether it takes batches of any size.
    ``example``: the arguments that it was traced with.
    """

    module: fx.GraphModule
    dynamic: bool
    example: tuple[tuple[Any, ...], dict[str, Any]]


def trace(
    module: nn.Module,
    example_inputs: Any,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: bool = True,
    accept: Callable[[fx.GraphModule], None] = lambda module: None,
) -> Traced:
    """Trace ``module`` (an nn.Module, fx.GraphModules included) in evaluation mode; it stays as it is.

    ``example_inputs``: a tensor, or a tuple of what forward takes; tensors whose first axis has the size of the
    first one's are batches. ``dynamic`` False keeps the example's batch size. ``accept`` raises ConversionError for
    a trace that is not good enough: a dynamic one is then tried again with a fixed batch.

    Raises ConversionError with PyTorch's reason where the module cannot be traced.
    """
    args = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    example = (args, dict(example_kwargs or {}))
    untraced: Exception | None = None
    refused: ConversionError | None = None
    with evaluating(module):
        for inputs, shapes in _attempts(*example, dynamic=dynamic):
            for strict in (False, True):  # non-strict is three times as fast, and PyTorch's own default
                try:
                    found = _export(module, inputs, shapes, strict=strict)
                except Exception as failure:  # noqa: BLE001 - the tracer runs the user's code, which raises anything
                    untraced = untraced or failure
                    continue
                _tidy(found, module)
                try:
                    accept(found)
                except ConversionError as failure:
                    refused = failure
                    break
                return Traced(found, shapes is not None, inputs)
    if refused is not None:
        raise refused
    raise ConversionError(
        f"torch.export cannot trace {type(module).__name__}: {_reason(untraced)}; make its forward traceable, or "
        "export it to ONNX"
    ) from untraced


def program_of(
    module: nn.Module, example: tuple[Any, ...], *, dynamic: bool
) -> tuple[torch.export.ExportedProgram | None, str]:
    """``torch.export`` of a module, for a batch of any size where ``dynamic`` and possible; else PyTorch's reason."""
    reason = ""
    for (args, kwargs), shapes in _attempts(example, {}, dynamic=dynamic):
        try:
            with _quiet():
                given = None if shapes is None else shapes[0]
                return torch.export.export(module, args, kwargs, dynamic_shapes=given), ""
        except Exception as failure:  # noqa: BLE001 - the tracer runs the user's code, which raises anything
            reason = reason or _reason(failure)
    return None, reason


Example = tuple[tuple[Any, ...], dict[str, Any]]


def _attempts(
    args: tuple[Any, ...], kwargs: dict[str, Any], *, dynamic: bool
) -> Iterator[tuple[Example, Any]]:
    """Inputs and dynamic shapes to try, best first: a batch of any size, then the example's own."""
    leaves = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    batch = next((x.shape[0] for x in leaves if x.ndim), 0)
    if batch and dynamic:

        def batched(x: Any) -> bool:
            return isinstance(x, torch.Tensor) and x.ndim > 0 and x.shape[0] == batch

        # torch.export takes an axis of size 1 for a constant
        doubled = pytree.tree_map(
            lambda x: torch.cat((x, x)) if batch == 1 and batched(x) else x, (args, kwargs)
        )
        shapes = pytree.tree_map(lambda x: {0: torch.export.Dim.AUTO} if batched(x) else None, (args, kwargs))
        yield doubled, shapes
    yield (args, kwargs), None


def _export(module: nn.Module, example: Example, shapes: Any, *, strict: bool) -> fx.GraphModule:
    args, kwargs = example
    given = None
    if shapes is not None:
        given = shapes[0] if not kwargs else _by_name(module, shapes)
    with _quiet():
        program = torch.export.export(module, args, kwargs, dynamic_shapes=given, strict=strict)
        found = program.module(check_guards=False)
    assert isinstance(found, fx.GraphModule)
    return found


def _tidy(traced: fx.GraphModule, module: nn.Module) -> None:
    """Bring a fresh trace into the form that the rest expects."""
    inline_regions(traced)
    _drop_checks(traced.graph)
    separate_layers(traced.graph)
    replace_partial_writes(traced.graph)
    _keep_state(traced, module)


def _keep_state(traced: nn.Module, module: nn.Module) -> None:
    """The trace gets the state_dict of the original: with tensors that the forward does not read, without others."""
    known, wanted = set(traced.state_dict()), module.state_dict(keep_vars=True)
    for path in known - set(wanted):
        owner_path, _, name = path.rpartition(".")
        owner_of(traced, owner_path)._non_persistent_buffers_set.add(name)
    kept = {id(wanted[path]): attribute(traced, path) for path in known & set(wanted)}
    for path, tensor in wanted.items():
        if path in known:
            continue
        owner_path, _, name = path.rpartition(".")
        owner, shared = owner_of(traced, owner_path), kept.get(id(tensor), tensor)
        if isinstance(shared, nn.Parameter):
            owner.register_parameter(name, shared)
        else:
            owner.register_buffer(name, shared)


def attribute(module: nn.Module, path: str) -> Any:
    """A dotted attribute."""
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def owner_of(root: nn.Module, path: str) -> nn.Module:
    """The sub-module at a dotted path, made where there is none."""
    for name in path.split(".") if path else []:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        found = root._modules[name]
        assert found is not None
        root = found
    return root


def _drop_checks(graph: fx.Graph) -> None:
    """What only asserts something about the original's sizes goes."""
    for node in reversed(graph.nodes):
        if (
            node.op == "call_function"
            and not node.users
            and operator_name(node).startswith(("_assert", "sym_"))
        ):
            graph.erase_node(node)


def _by_name(module: nn.Module, shapes: tuple[Sequence[Any], Mapping[str, Any]]) -> dict[str, Any]:
    import inspect

    names = list(inspect.signature(module.forward).parameters)
    return {**dict(zip(names, shapes[0], strict=False)), **shapes[1]}


@contextmanager
def _quiet() -> Iterator[None]:
    """The tracer's own log and prints of what it tried say nothing to a user."""
    loggers = {name: logging.getLogger(name) for name in ("torch.export", "torch.fx", "torch._dynamo")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def _reason(error: Exception | None) -> str:
    """The first sentence of PyTorch's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300].rstrip(" .")
