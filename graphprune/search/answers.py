"""What outputs are held to where no training has a loss of its own: labels, or the model's own answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from graphprune.search.class_labels import counted, cross_entropy

Outputs = tuple[torch.Tensor, ...]
Objective = Callable[[Outputs, torch.Tensor | None], torch.Tensor]
"""``objective(outputs, labels)`` -> a scalar."""


def every(outputs: torch.Tensor | Outputs) -> Outputs:
    """One tensor or several, as several."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


def classes(scores: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor | None:
    """What ``scores`` ``[n, classes, ...]`` are held to: int64 ``[n, ...]``; None where these are no scores.

    Labels of that shape; where there are none, what the scores say themselves.
    """
    if scores.ndim < 2 or scores.shape[1] < 2:
        return None
    said = scores.detach().argmax(1)
    if labels is None or labels.shape != said.shape:
        return said
    return counted(labels, scores.shape[1])


def distance(output: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, a mean over what has a class (0 where nothing has); mean square difference from outputs."""
    if wanted.is_floating_point():
        return F.mse_loss(output, wanted)
    return cross_entropy(output, wanted)
