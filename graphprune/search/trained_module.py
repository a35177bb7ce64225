"""Which module a search trains: the traced one itself where masks fit into it, or one made from the ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import fx

from graphprune.errors import ConversionError, FidelityError
from graphprune.fx.importer import Imported, import_model
from graphprune.models import Model
from graphprune.search.comparing import compare_module
from graphprune.search.structures import Structure

Masked = Callable[[Imported], Structure]
"""Puts masks, which begin at 1, into a module."""


def masked_module(
    source: Model, input_shapes: Mapping[str, tuple[int, ...]], masked: Masked
) -> tuple[Imported, fx.GraphModule, Structure]:
    """The module with its masks, a frozen copy from before (a teacher, and what scores are measured on), and the
    masks. On the device of the module that ``source`` was traced from.

    Raises ConversionError for a model that cannot be trained, and what ``masked`` raises.
    """
    found = _traced(source, input_shapes, masked)
    if found is None:
        imported = import_model(source.ir, input_shapes=dict(input_shapes))
        found = imported, frozen_copy(imported.module), masked(imported)
    device = _device(source)
    for module in (found[0].module, found[1]):
        module.to(device)
    return found


def _traced(
    source: Model, input_shapes: Mapping[str, tuple[int, ...]], masked: Masked
) -> tuple[Imported, fx.GraphModule, Structure] | None:
    """The traced module, if with masks of 1 it computes what the ONNX model does."""
    if source.traced is None:
        return None
    from graphprune.frontends.torch.trainable import trainable

    try:
        imported = trainable(source.traced.converted, input_shapes)
        original = frozen_copy(imported.module)
        structure = masked(imported)
        compare_module(imported.module, imported, source.ir)
    except (ConversionError, FidelityError) as reason:
        source.notes.append(
            f"masks are trained in a module made from the ONNX form, where dropout is off ({reason})"
        )
        return None
    return imported, original, structure


def _device(source: Model) -> torch.device:
    if source.traced is None:
        return torch.device("cpu")
    parameter = next(source.traced.original.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def frozen_copy(module: fx.GraphModule) -> fx.GraphModule:
    """In evaluation mode, without gradients."""
    copy: fx.GraphModule = deepcopy(module).eval()
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    return copy
