"""Pruning an nn.Module: through its ONNX model, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from graphprune.choosing import PruneOptions
from graphprune.errors import ConversionError, FidelityError
from graphprune.frontends.torch.saving import program_bytes
from graphprune.frontends.torch.slicing import slice_in_place
from graphprune.models import Model, of_module
from graphprune.pruning import prune_channels
from graphprune.results import PruneResult


def prune_module(model: Model, run: Callable[[Model], PruneResult], *, in_place: bool = False) -> PruneResult:
    """``run`` prunes a model; the result gets its ``module``, checked by running it.

    Where a trace for batches of any size does not lead back to PyTorch, one with the example's batch size is tried.
    Raises ConversionError, FidelityError, and OptionError for a module that cannot be sliced ``in_place``.
    """
    traced = model.traced
    assert traced is not None
    try:
        result = with_module(run(model), model)
    except (ConversionError, FidelityError):
        if not traced.dynamic:
            raise
        model = of_module(traced.with_fixed_batch())
        result = with_module(run(model), model)
    if in_place:
        slice_in_place(traced.original, result.module, traced.example)
    return result


def rehearsed(
    model: Model, options: PruneOptions, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> Model:
    """``model``, or its trace for the example's batch size, whichever leads back to PyTorch under ``options``.

    Asked before a search, so that no training is lost. Raises ConversionError, FidelityError, BudgetError.
    """
    found = model

    def run(m: Model) -> PruneResult:
        nonlocal found
        found = m
        shapes = m.sizes(input_shapes)
        once = replace(options, method="magnitude", allocation="uniform", input_shapes=shapes)
        pruned = prune_channels(m.ir, m.name, once, sha256="")
        return PruneResult(Model(pruned.model), pruned.plan, pruned.fidelity, pruned.analysis, 0)

    prune_module(model, run)
    return found


def with_module(result: PruneResult, model: Model) -> PruneResult:
    """``result``, with the pruned module where ``model`` is of one. Raises ConversionError, FidelityError."""
    traced = model.traced
    if traced is None or result.module is not None:
        return result
    module = traced.pruned(result.model.ir)
    program = partial(program_bytes, module, traced.example, dynamic=traced.dynamic)
    return replace(result, module=module, program=program)
