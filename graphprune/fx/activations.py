"""Activation functions that other operators name in an attribute (fused or recurrent ones)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx
from torch.nn import functional as F

from graphprune.fx.conversion import Conversion

Activation = Callable[[Conversion, fx.Node], fx.Node]

_PLAIN: dict[str, Callable[..., torch.Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Tanh": torch.tanh,
}


def activation(name: str) -> Activation | None:
    """The parameter-free activation called ``name`` (letter case is ignored, as in onnxruntime), or None."""
    function = _PLAIN.get(name.capitalize())
    return None if function is None else lambda c, x: c.emit(function, x)
