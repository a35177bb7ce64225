"""Stored tensors between onnx_ir and torch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn


def like(array: np.ndarray, old: torch.Tensor) -> torch.Tensor:
    """``array`` in the type, on the device and of the kind of ``old``."""
    data = np.array(array, order="C")
    if old.dtype == torch.bfloat16:
        new = torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)
    else:
        new = torch.from_numpy(data)
    new = new.to(device=old.device, dtype=old.dtype)
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def data_of(value: ir.Value) -> np.ndarray:
    """The data of an initializer or Constant node."""
    node = value.producer()
    tensor = value.const_value if node is None else node.attributes["value"].as_tensor()
    assert tensor is not None
    return np.asarray(tensor.numpy())


def stored_inputs(node: fx.Node) -> list[fx.Node]:
    """Parameters and buffers that a constant node is computed from."""
    found, stack = [], [node]
    while stack:
        current = stack.pop()
        if current.op == "get_attr":
            found.append(current)
        stack.extend(current.all_input_nodes)
    return found
