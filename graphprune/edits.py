"""What pruning changes in a node besides its weights: plain data that a back end applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.labels import Labels


@dataclass(frozen=True)
class SetAttr:
    """Give attribute ``name`` a new value (None removes it)."""

    name: str
    value: Any


@dataclass(frozen=True, eq=False)
class SetInput:
    """Input ``index`` must be this integer tensor when the analysed shapes are fed.

    A back end leaves an input alone that already computes to the right numbers. ``keep_symbols``:
    entries 0 and -1 of a literal (ONNX Reshape) stay as they are.
    """

    index: int
    array: np.ndarray
    keep_symbols: bool = False


@dataclass(frozen=True, eq=False)
class ReplaceBySelection:
    """Replace the node's ``output`` by Gather(``source``, indices, axis), indices into what is kept."""

    source: str
    output: int
    axis: int
    indices: np.ndarray


Edit = SetAttr | SetInput | ReplaceBySelection


class Kept:
    """Which labels stay: the only view of a decision that a rewrite gets."""

    def __init__(self, alive: np.ndarray) -> None:
        self._alive = alive

    def mask(self, ids: np.ndarray) -> np.ndarray:
        """bool, the shape of ``ids``: True where the position stays."""
        mask: np.ndarray = self._alive[ids]
        return mask

    def count(self, ids: np.ndarray) -> int:
        """Number of positions that stay."""
        return int(np.count_nonzero(self._alive[ids]))

    def indices(self, ids: np.ndarray) -> np.ndarray:
        """Positions of a label vector that stay."""
        return np.flatnonzero(self._alive[ids])

    def changed(self, ids: np.ndarray) -> bool:
        """Whether anything along ``ids`` goes."""
        return not bool(np.all(self._alive[ids]))

    def axis_mask(self, x: Labels, axis: int) -> np.ndarray:
        """bool ``[size]``: which positions of a tensor's axis stay."""
        dims = x.dims(axis)
        mask = np.ones(x.factors[axis], bool)
        for term in x.on(axis):
            others = tuple(d for d in range(term.ndim) if d not in dims)
            mask &= np.any(self._alive[term], axis=others)
        return mask.reshape(-1)

    def shape(self, x: Labels) -> tuple[int, ...]:
        """The tensor's shape after pruning."""
        return tuple(
            int(np.count_nonzero(self.axis_mask(x, a))) if x.on(a) else x.shape[a] for a in range(x.rank)
        )
