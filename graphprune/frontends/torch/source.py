"""An nn.Module as a model to prune, and the pruned model as a module again: both checked by running them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprune.errors import ConversionError, FidelityError, OptionError
from graphprune.frontends.torch.capture import capture
from graphprune.frontends.torch.convert import Converted
from graphprune.frontends.torch.evaluating import evaluating
from graphprune.frontends.torch.writeback import write_back
from graphprune.running import Session, first_line

TOLERANCE = 1e-4
"""Of the largest relative difference between a module in torch and its ONNX model in onnxruntime (float32)."""

_HALF = 2e-2
"""The same in half precision."""


@dataclass(frozen=True, eq=False)
class TorchSource:
    """A module, the inputs that it was traced with, and what the trace became."""

    original: nn.Module
    example: tuple[Any, ...]
    converted: Converted

    @property
    def dynamic(self) -> bool:
        """Whether the trace takes batches of any size."""
        return any(v.shape is not None and not v.shape.is_static() for v in self.converted.model.graph.inputs)

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Sizes of inputs with a free batch axis, for one sample."""
        found = {}
        leaves = [x for x in pytree.tree_leaves(self.example) if isinstance(x, torch.Tensor)]
        for value, x in zip(self.converted.model.graph.inputs, leaves, strict=False):
            if value.shape is not None and not value.shape.is_static():
                free = [isinstance(d, int) for d in value.shape]
                found[value.name or ""] = tuple(n if k else 1 for n, k in zip(x.shape, free, strict=True))
        return found

    def with_fixed_batch(self) -> TorchSource:
        """The same, traced with the example's batch size alone. Raises ConversionError."""
        return trace_source(self.original, self.example, dynamic=False)

    def pruned(self, model: ir.Model) -> fx.GraphModule:
        """The pruned module; ``model`` is what surgery made of ``converted.model``.

        Raises FidelityError where it does not compute what the ONNX model does, ConversionError where an
        operator's change has no counterpart.
        """
        module = write_back(self.converted, model)
        for example in self._batches():
            _compare(module, model, example, f"the pruned {type(self.original).__name__}")
        return module

    def _batches(self) -> Iterator[tuple[Any, ...]]:
        """The example, and where any batch will do, one sample more."""
        yield self.example
        leaves = [x for x in pytree.tree_leaves(self.example) if isinstance(x, torch.Tensor) and x.ndim]
        if not self.dynamic or not leaves:
            return
        batch = leaves[0].shape[0]

        def longer(x: Any) -> Any:
            batched = isinstance(x, torch.Tensor) and x.ndim > 0 and x.shape[0] == batch
            return torch.cat((x, x[:1])) if batched else x

        yield pytree.tree_map(longer, self.example)


def trace_source(module: nn.Module, example_inputs: Any, *, dynamic: bool = True) -> TorchSource:
    """Trace ``module`` with ``example_inputs`` (a tensor, or a tuple of what forward takes).

    Raises OptionError without inputs, ConversionError for what cannot be traced, FidelityError where the trace's
    ONNX model does not compute what the module does.
    """
    if example_inputs is None:
        raise OptionError(
            f"{type(module).__name__} is a PyTorch module: give example_inputs, as torch.randn(1, 3, 224, 224)"
        )
    example = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    found = TorchSource(module, example, capture(module, example, dynamic=dynamic))
    with evaluating(module):
        _compare(module, found.converted.model, example, f"the trace of {type(module).__name__}")
    return found


def _compare(module: nn.Module, model: ir.Model, example: tuple[Any, ...], what: str) -> None:
    """Raises FidelityError where module and model differ on ``example``."""
    inputs = [x for x in pytree.tree_leaves(example) if isinstance(x, torch.Tensor)]
    feed = {v.name or "": _array(x) for v, x in zip(model.graph.inputs, inputs, strict=False)}
    with torch.no_grad():
        wanted = [x for x in pytree.tree_leaves(module(*example)) if isinstance(x, torch.Tensor)]
    try:
        with Session(model) as session:
            found = list(session.run(feed).values())
    except Exception as failure:
        hint = "; prune module.float()" if any(x.dtype == np.float64 for x in feed.values()) else ""
        raise ConversionError(
            f"{what} cannot be checked, onnxruntime refuses it: {first_line(failure)}{hint}"
        ) from failure
    for a, b in zip(wanted, found, strict=False):
        mine = _array(a).astype(np.float64)
        allowed = TOLERANCE if a.dtype in (torch.float32, torch.float64) else _HALF
        if mine.shape != b.shape or (difference := _apart(mine, b)) > allowed:
            told = f"{mine.shape} and {b.shape}" if mine.shape != b.shape else f"{difference:.1e} apart"
            raise FidelityError(
                f"{what} differs between PyTorch and onnxruntime ({told}): nothing was changed"
            )


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
    if not a.size:
        return 0.0
    scale = max(float(np.abs(a).max()), 1e-30)
    return float(np.abs(a - b.astype(np.float64)).max()) / scale


def _array(tensor: torch.Tensor) -> np.ndarray:
    found = tensor.detach().cpu()
    return np.asarray((found.float() if found.dtype == torch.bfloat16 else found).numpy())
