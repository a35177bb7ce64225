"""nn.Module -> its trace and its ONNX model, for any batch where every operator allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from graphprune.frontends.torch.convert import Converted, convert
from graphprune.frontends.torch.export import trace


def capture(
    module: nn.Module,
    example_inputs: Any,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic: bool = True,
) -> Converted:
    """Trace ``module`` in evaluation mode and convert the trace; the module stays as it is.

    ``example_inputs``: a tensor, or a tuple of what forward takes; ``example_kwargs``: its keyword arguments. The
    batch axis stays dynamic where both steps allow it and ``dynamic`` asks for it, else it has the example's size.

    Raises ConversionError, in one sentence, for what cannot be traced or has no counterpart.
    """
    found: dict[fx.GraphModule, Converted] = {}

    def accept(traced: fx.GraphModule) -> None:
        found[traced] = convert(traced)

    return found[trace(module, example_inputs, example_kwargs, dynamic=dynamic, accept=accept).module]
