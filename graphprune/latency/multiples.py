"""Which channel counts this onnxruntime's kernels run well, measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.engine import Engine
from graphprune.latency.contraction import Contraction
from graphprune.latency.table import CostTable, Progress

WIDTHS = (32, 64, 128)
"""A measured multiple holds from such a width to the next one."""

CANDIDATES = (1, 2, 4, 8, 16, 32)

TOLERANCE = 0.05
"""A multiple is good enough where a multiply-accumulate takes at most this much longer than at the counts around."""

STEPS = 2
"""A multiple leaves a group as wide as this at least so many counts."""

_SIDES = {32: 56, 64: 28, 128: 14}
_KERNELS = (3, 1)


@dataclass(frozen=True)
class Multiples:
    """``costs[i, j]``: time for a multiply-accumulate at counts around ``widths[j]`` that are multiples of
    ``CANDIDATES[i]`` and of no larger candidate, over that at multiples of half the width on either side."""

    widths: tuple[int, ...]
    costs: np.ndarray

    @property
    def rule(self) -> tuple[tuple[int, int], ...]:
        """(from this width, kept counts are a multiple of this), widest first: what ``alignment`` takes.

        The smallest multiple that is good enough, as are all larger ones up to a STEPS-th of the width.
        """
        found = []
        for j, width in enumerate(self.widths):
            usable = [i for i, m in enumerate(CANDIDATES) if m <= width // STEPS]
            good = [
                i for i in usable if (self.costs[[k for k in usable if k >= i], j] <= 1 + TOLERANCE).all()
            ]
            found.append((width, CANDIDATES[min(good, default=usable[-1])]))
        return tuple(sorted(found, reverse=True))

    def rows(self) -> Iterator[tuple[int, list[float]]]:
        """Candidate, and its cost near every width."""
        yield from zip(CANDIDATES, self.costs.tolist(), strict=True)

    def sentence(self) -> str:
        """For people."""
        return ", ".join(f"{multiple} from {width} wide" for width, multiple in self.rule)

    def to_dict(self) -> dict[str, Any]:
        """Widths, candidates, costs (null where there is none) and the rule."""
        costs = [[None if np.isnan(x) else round(x, 4) for x in row] for row in self.costs.tolist()]
        return {
            "widths": list(self.widths),
            "candidates": list(CANDIDATES),
            "costs": costs,
            "rule": [{"from": width, "multiple_of": multiple} for width, multiple in self.rule],
        }


def measure_multiples(
    engine: Engine, *, table: CostTable | None = None, progress: Progress | None = None
) -> Multiples:
    """Time 3x3 and 1x1 convolutions near every width, or read what was measured before.

    Inputs and outputs have the same count, as in the middle of a network.
    """
    table = table or CostTable.of(engine)
    layers = {(w, k): _layer(w, k) for w in WIDTHS for k in _KERNELS}
    counts = {w: [*_anchors(w), *(n for m in CANDIDATES for n in _counts(w, m))] for w in WIDTHS}
    table.fill([(c, [(n, n) for n in counts[w]]) for (w, _), c in layers.items()], progress)
    costs = np.array(
        [
            [np.mean([_cost(table, layers[w, k], w, multiple) for k in _KERNELS]) for w in WIDTHS]
            for multiple in CANDIDATES
        ]
    )
    return Multiples(WIDTHS, costs)


def _anchors(width: int) -> tuple[int, int, int]:
    return width // 2, width, width * 3 // 2


def _counts(width: int, multiple: int) -> list[int]:
    """One below the width and one above, near the middle between two anchors; none for multiples that anchors are."""
    if multiple >= width // 2:
        return []
    odd = [n for n in range(multiple, 2 * width, multiple) if n // multiple % 2]
    return [min(odd, key=lambda n: abs(n - middle)) for middle in (width * 3 // 4, width * 5 // 4)]


def _layer(width: int, kernel: int) -> Contraction:
    pads = (("pads", (kernel // 2,) * 4),) if kernel > 1 else ()
    return Contraction("Conv", "float32", (1, _SIDES[width], _SIDES[width]), (kernel, kernel), pads)


def _cost(table: CostTable, contraction: Contraction, width: int, multiple: int) -> float:
    """For a multiply-accumulate, over what the anchors on either side take; 1 for multiples that anchors are."""
    anchors = _anchors(width)
    each = [table.at(contraction, (n, n)) / n**2 for n in anchors]
    found = [
        table.at(contraction, (n, n)) / n**2 / float(np.interp(n, anchors, each))
        for n in _counts(width, multiple)
    ]
    return float(np.mean(found)) if found else 1.0
