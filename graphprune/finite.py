"""Weights that are no numbers: a channel that computes NaN cannot be masked, because 0 x NaN is NaN."""

from __future__ import annotations

import numpy as np

from graphprune.coupling import Coupling
from graphprune.errors import ModelError

_TYPES = ("float16", "bfloat16", "float32", "float64")


def check_finite(coupling: Coupling) -> None:
    """Raises ModelError where a stored weight of channels that may go holds NaN or an infinite number."""
    checked = set()
    for s in coupling.coupler.slices:
        tensor = s.tensor
        own = tensor.producer is None or tensor.producer.op == "Constant"
        if tensor in checked or not own or tensor.dtype not in _TYPES:
            continue
        if coupling.removable[coupling.of(s.ids)].any():
            checked.add(tensor)
            if not np.isfinite(tensor.array()).all():
                raise ModelError(
                    f"weight {tensor.name!r} holds NaN or infinite numbers, so that no result can be proved: "
                    "repair it, or train the model again"
                )
