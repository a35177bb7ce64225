"""SynFlow: synaptic flow of the network with absolute weights, in many small rounds; no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import OptionError
from graphprune.methods.registry import register, scored

if TYPE_CHECKING:
    from graphprune.search.scoring import Scoring

ROUNDS = 100
"""As published: the share that is kept falls exponentially over this many rounds."""


def synflow(scoring: Scoring) -> np.ndarray:
    """Scores of the last round; units that went in earlier ones score 0 (algorithm 1)."""
    keep = np.ones(scoring.units.size, bool)
    with _linearised(scoring) as inputs:
        scores = flow(scoring, keep, inputs)
        final = float(np.mean(scoring.kept_with(scores)))
        for number in range(1, ROUNDS):
            count = max(1, round(keep.size * final ** (number / ROUNDS)))
            keep = np.zeros(keep.size, bool)
            keep[np.argsort(-scores, kind="stable")[:count]] = True
            scores = flow(scoring, keep, inputs)
    return scores


def flow(scoring: Scoring, keep: np.ndarray, inputs: list[object]) -> np.ndarray:
    """``|s dR/ds|`` under the masks ``keep``, R the sum of all outputs: float64 ``[units]``."""
    import torch

    with scoring.masks_at_one() as probe:
        with torch.no_grad():
            probe.copy_(torch.from_numpy(keep))
        outputs = scoring.module(*inputs)
        tensors = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        total = torch.stack([x.double().sum() for x in tensors if x.is_floating_point()]).sum()
        (gradient,) = torch.autograd.grad(total, probe)
    if not torch.isfinite(gradient).all():
        raise OptionError(
            "--method synflow: the flow through this network exceeds float32; use another method"
        )
    return np.asarray(np.abs(gradient.double().cpu().numpy()) * keep)


@contextmanager
def _linearised(scoring: Scoring) -> Iterator[list[object]]:
    """Absolute weights, BatchNorm as the identity, inputs of ones; everything is put back."""
    import torch

    state = {k: v.clone() for k, v in scoring.module.state_dict().items()}
    identity = _identities(scoring)
    try:
        with torch.no_grad():
            for name, tensor in (*scoring.module.named_parameters(), *scoring.module.named_buffers()):
                if name in scoring.imported.tensors and tensor.is_floating_point():
                    value = identity.get(scoring.imported.tensors[name])
                    tensor.abs_() if value is None else tensor.fill_(value)
        yield [torch.ones(v.shape or ()) for v in scoring.imported.graph.inputs]
    finally:
        scoring.module.load_state_dict(state)


def _identities(scoring: Scoring) -> dict[str, float]:
    """Tensors of BatchNorm by name, and what makes it the identity."""
    found: dict[str, float] = {}
    for node in scoring.imported.graph.nodes:
        if node.op == "BatchNormalization":
            for index, number in ((1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0)):
                value = node.input(index)
                if value is not None:
                    found[value.name] = number
    return found


register(
    scored(
        "synflow",
        synflow,
        summary="synaptic flow of absolute weights, in 100 rounds",
        citation="Tanaka et al. 2020, arXiv:2006.05467",
        structures=("channel", "block"),
        data="none",
    )
)
