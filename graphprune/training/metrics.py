"""Figures that say how good a model is, computed batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from graphprune.data.sentences import reason
from graphprune.errors import DataError
from graphprune.lookup import lookup
from graphprune.python_functions import PREFIX, import_function
from graphprune.search.class_labels import check_labels, in_range


class Metric(Protocol):
    """A figure over a data set, higher or lower being better as its name says."""

    @property
    def name(self) -> str:
        """What the user called it."""

    def update(self, outputs: Sequence[torch.Tensor], labels: torch.Tensor | None) -> None:
        """Add a batch: the graph's outputs in order, and the labels. Raises DataError where they do not fit."""

    def value(self) -> float:
        """The figure so far. Raises DataError when nothing has been counted."""


class Accuracy:
    """The share of samples, 0 to 1, whose highest score is that of the label (top-1).

    The first output has scores or probabilities ``[n, classes]``, with axes of size 1 anywhere; labels
    are classes ``[n]``.
    """

    name = "accuracy"

    def __init__(self) -> None:
        self._right = 0
        self._count = 0

    def update(self, outputs: Sequence[torch.Tensor], labels: torch.Tensor | None) -> None:
        """See Metric."""
        scores, target = outputs[0], _labels(labels, self.name)
        classes = max(scores.shape[1:], default=1)
        if classes < 2 or math.prod(scores.shape[1:]) != classes or target.shape != scores.shape[:1]:
            raise _misfit(self.name, scores, target, "[n, classes]", "[n]")
        check_labels(target, classes)
        right = scores.reshape(len(scores), classes).argmax(1) == target.to(scores.device)
        self._right += int(right.sum())
        self._count += len(target)

    def value(self) -> float:
        """See Metric."""
        if not self._count:
            raise DataError("accuracy: there are no samples to count")
        return self._right / self._count


class MeanIoU:
    """Intersection over union of pixels, 0 to 1, mean over the classes that occur in labels or predictions.

    The first output has scores ``[n, classes, h, w]``, which are brought to the size of the labels
    ``[n, height, width]`` bilinearly. Pixels whose label is no class (255, negative, ``classes``) are
    left out.
    """

    name = "miou"

    def __init__(self) -> None:
        self._pairs = torch.zeros(0, 0, dtype=torch.int64)
        """How many pixels of a class (row) are predicted as each (column)."""

    def update(self, outputs: Sequence[torch.Tensor], labels: torch.Tensor | None) -> None:
        """See Metric."""
        scores, target = outputs[0], _labels(labels, self.name)
        if target.ndim == 4 and target.shape[1] == 1:
            target = target[:, 0]
        if scores.ndim != 4 or target.ndim != 3 or scores.shape[1] < 2 or len(scores) != len(target):
            raise _misfit(self.name, scores, target, "[n, classes, height, width]", "[n, height, width]")
        classes = scores.shape[1]
        check_labels(target, classes)
        if scores.shape[2:] != target.shape[1:]:
            scores = F.interpolate(scores.float(), target.shape[1:], mode="bilinear", align_corners=False)
        target = target.to(scores.device)
        counted = in_range(target, classes)
        codes = target[counted] * classes + scores.argmax(1)[counted]
        if not self._pairs.numel():
            self._pairs = torch.zeros(classes, classes, dtype=torch.int64)
        self._pairs += torch.bincount(codes, minlength=classes**2).reshape(classes, classes).cpu()

    def value(self) -> float:
        """See Metric."""
        both = self._pairs.diagonal()
        either = self._pairs.sum(0) + self._pairs.sum(1) - both
        if not either.any():
            raise DataError("miou: no pixel has a label that is a class")
        return float((both[either > 0] / either[either > 0]).double().mean())


class Custom:
    """``function(outputs, labels)`` of the user, called once with numpy arrays of all samples.

    Several outputs are a tuple of arrays; labels are None where the data has none.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._function = function
        self._outputs: list[list[np.ndarray]] = []
        self._labels: list[np.ndarray] = []

    def update(self, outputs: Sequence[torch.Tensor], labels: torch.Tensor | None) -> None:
        """See Metric."""
        self._outputs.append([_numpy(t) for t in outputs])
        if labels is not None:
            self._labels.append(_numpy(labels))

    def value(self) -> float:
        """See Metric. Raises DataError, too, for whatever goes wrong in the function."""
        if not self._outputs:
            raise DataError(f"{self.name}: there are no samples to count")
        try:
            outputs = tuple(np.concatenate(parts) for parts in zip(*self._outputs, strict=True))
            labels = np.concatenate(self._labels) if self._labels else None
            figure = float(self._function(outputs[0] if len(outputs) == 1 else outputs, labels))
        except Exception as error:
            raise DataError(f"{self.name} failed with {reason(error)}") from error
        if math.isnan(figure):
            raise DataError(f"{self.name} returned nan: return a number")
        return figure


METRICS: dict[str, Callable[[], Metric]] = {Accuracy.name: Accuracy, MeanIoU.name: MeanIoU}


def find_metric(name: str) -> Metric:
    """A fresh metric: accuracy, miou or python:package.module:function. Raises OptionError."""
    if name.startswith(PREFIX):
        return Custom(name, import_function(name, "--eval"))
    return lookup(METRICS, name, "metric")()


def _labels(labels: torch.Tensor | None, metric: str) -> torch.Tensor:
    if labels is None:
        raise DataError(f"{metric} needs labels: give --eval-data that has them")
    return labels


def _misfit(metric: str, scores: torch.Tensor, labels: torch.Tensor, wanted: str, target: str) -> DataError:
    return DataError(
        f"{metric} needs a first output {wanted} and labels {target}, but they are {list(scores.shape)} and"
        f" {list(labels.shape)}: choose another metric, or write python:package.module:function"
    )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    values = tensor.detach().cpu()
    result: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return result
