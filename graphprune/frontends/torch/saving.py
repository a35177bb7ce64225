"""A pruned module as a file of ``torch.export.save``."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import fx

from graphprune.errors import ConversionError
from graphprune.frontends.torch.export import program_of


def program_bytes(module: fx.GraphModule, example: tuple[Any, ...], *, dynamic: bool) -> bytes:
    """What ``torch.export.load`` reads, the same bytes for the same module.

    Raises ConversionError, with PyTorch's reason, where it cannot be exported.
    """
    program, failure = program_of(module, example, dynamic=dynamic)
    if program is None:
        raise ConversionError(f"torch.export cannot export the pruned module: {failure}; write .onnx instead")
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop("from_node", None)  # holds addresses in memory
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()
