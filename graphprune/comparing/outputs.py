"""How far the outputs of two models are apart, summed up batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphprune.comparing.matching import Pair
from graphprune.errors import OptionError


class Difference:
    """Of one output. Figures are over all values that are finite in both models."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.values = self.not_finite = self.rows = self.agreeing = 0
        self._sum = self._largest = self._sum_first = self._largest_first = 0.0
        self._dot = self._square_first = self._square_second = 0.0
        self._classes = False

    def add(self, first: np.ndarray, second: np.ndarray, names: tuple[str, str]) -> None:
        """A batch of the output of both. Raises OptionError where the sizes differ."""
        if first.shape != second.shape:
            raise OptionError(
                f"output {self.pair.first!r} of {names[0]} has sizes {list(first.shape)} and {self.pair.second!r} of "
                f"{names[1]} {list(second.shape)} on the same inputs: compare takes models with the same outputs"
            )
        if first.dtype.kind not in "fiub":  # text
            raise OptionError(
                f"output {self.pair.first!r} of {names[0]} holds {first.dtype}, which has no distance"
            )
        self._agree(first, second)
        a, b = first.astype(np.float64).reshape(-1), second.astype(np.float64).reshape(-1)
        finite = np.isfinite(a) & np.isfinite(b)
        self.not_finite += int(a.size - np.count_nonzero(finite))
        self.values += a.size
        a, b = a[finite], b[finite]
        apart = np.abs(a - b)
        self._sum += float(apart.sum())
        self._largest = max(self._largest, float(apart.max(initial=0.0)))
        self._sum_first += float(np.abs(a).sum())
        self._largest_first = max(self._largest_first, float(np.abs(a).max(initial=0.0)))
        self._dot += float(a @ b)
        self._square_first += float(a @ a)
        self._square_second += float(b @ b)

    def _agree(self, first: np.ndarray, second: np.ndarray) -> None:
        """Classes: ``[n, classes]`` of numbers with a fraction."""
        if first.dtype.kind == "f" and first.ndim == 2 and first.shape[1] > 1:
            self._classes = True
            self.rows += len(first)
            self.agreeing += int((first.argmax(1) == second.argmax(1)).sum())

    def to_dict(self) -> dict[str, Any]:
        """``max_rel``: the largest difference over the first model's largest value; ``mean_rel``: the same of means.

        A figure that does not exist (nothing is finite, all zero, no classes) is None.
        """
        counted = self.values - self.not_finite
        norms = (self._square_first * self._square_second) ** 0.5
        return {
            "first": self.pair.first,
            "second": self.pair.second,
            "values": self.values,
            "not_finite": self.not_finite,
            "max_abs": self._largest if counted else None,
            "mean_abs": self._sum / counted if counted else None,
            "max_rel": self._largest / self._largest_first if self._largest_first else None,
            "mean_rel": self._sum / self._sum_first if self._sum_first else None,
            "cosine": min(max(self._dot / norms, -1.0), 1.0) if norms else None,
            "top1_agreement": self.agreeing / self.rows if self._classes and self.rows else None,
        }
