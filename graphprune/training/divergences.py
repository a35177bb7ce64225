"""How far a student's output is from its teacher's, for each kind of output."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from graphprune.training.output_kinds import Kind, Output

TINY = float(torch.finfo(torch.float32).tiny)
"""Floor of a probability before its logarithm.

The gradient 1 / p of the logarithm stays finite there, and the backward pass of softmax or sigmoid
multiplies it by p again: a higher floor would cut the gradient of confidently wrong outputs.
"""


def wide(x: torch.Tensor) -> torch.Tensor:
    """float32, in which losses are computed also under autocast; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def scores(out: Output, x: torch.Tensor) -> torch.Tensor:
    """Numbers whose softmax over the classes is the output's distribution."""
    return x.clamp_min(TINY).log() if out.kind is Kind.probabilities else x


def softmax_divergence(
    out: Output, student: torch.Tensor, teacher: torch.Tensor, temp: float
) -> torch.Tensor:
    """KL(teacher || student) at temperature T, times T^2, mean over the distributions (Hinton et al. 2015)."""
    s, t = (F.log_softmax(out.by_class(scores(out, x)) / temp, dim=1) for x in (student, teacher))
    positions = s.shape[0] * s.shape[2]
    return F.kl_div(s, t, reduction="sum", log_target=True) * (temp**2 / positions)


def bernoulli_divergence(
    out: Output, student: torch.Tensor, teacher: torch.Tensor, temp: float
) -> torch.Tensor:
    """Binary KL(teacher || student) at temperature T, times T^2, mean over the elements.

    Cross-entropy less the teacher's entropy, so that equal outputs give 0.
    """
    s, t = (_logit(x) / temp for x in (student, teacher))
    target = torch.sigmoid(t)
    cross, entropy = (F.binary_cross_entropy_with_logits(x, target) for x in (s, t))
    return (cross - entropy) * temp**2


def feature_divergence(
    out: Output, student: torch.Tensor, teacher: torch.Tensor, temp: float
) -> torch.Tensor:
    """Mean squared error over the variance of the teacher's output in this batch: 1 is a constant guess."""
    spread = teacher.var(correction=0) + 1e-6 * teacher.square().mean() + 1e-12  # never 0, even if constant
    return F.mse_loss(student, teacher) / spread


Divergence = Callable[[Output, torch.Tensor, torch.Tensor, float], torch.Tensor]

DIVERGENCES: dict[Kind, Divergence] = {
    Kind.logits: softmax_divergence,
    Kind.probabilities: softmax_divergence,
    Kind.log_probabilities: softmax_divergence,
    Kind.bernoulli: bernoulli_divergence,
    Kind.features: feature_divergence,
}


def _logit(p: torch.Tensor) -> torch.Tensor:
    return p.clamp_min(TINY).log() - (1 - p).clamp_min(TINY).log()
