"""Class labels against the number of classes of a model."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from graphprune.errors import DataError

IGNORE = 255
"""A pixel of this class (where the model has no such class) belongs to none."""

_NO_CLASS = -100


def in_range(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """bool, shaped like ``labels``: which of them name one of ``classes`` classes."""
    return (labels >= 0) & (labels < classes)


def counted(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """``labels`` as int64; what names none of the classes is marked, and ``cross_entropy`` leaves it out."""
    whole = labels.long()
    return whole.masked_fill(~in_range(whole, classes), _NO_CLASS)


def cross_entropy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of scores ``[n, classes, ...]`` with ``counted`` labels ``[n, ...]``: a mean over these; 0 without any."""
    total = F.cross_entropy(scores, labels, ignore_index=_NO_CLASS, reduction="sum")
    return total / (labels != _NO_CLASS).sum().clamp_min(1)


def check_labels(labels: torch.Tensor, classes: int) -> None:
    """Compare class labels with the number of classes of a model.

    labels: integers ``[n]`` in 0..classes-1, or ``[n, height, width]``, where a negative number, 255 and
    ``classes`` itself (the usual numbers for "no class") are allowed besides. Raises DataError.
    """
    if labels.is_floating_point():
        raise DataError(
            f"labels hold {_dtype_name(labels)} instead of class numbers: store integers, or choose a loss"
            " for targets such as mse"
        )
    wrong = ~in_range(labels, classes)
    if labels.ndim > 1:
        wrong &= (labels > classes) & (labels != IGNORE)
    if wrong.any():
        worst = int(labels[wrong][0])
        raise DataError(
            f"label {worst} is out of range: the model has {classes} classes, so labels go from 0 to"
            f" {classes - 1}; check that data and model belong together"
        )


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
