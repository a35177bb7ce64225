"""What a plan takes from one tensor, as index arithmetic: kept positions, removed ones, groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.errors import PlanError
from graphprune.plan import Indices


@dataclass(frozen=True)
class Cut:
    """What one tensor loses: positions by axis, and the axes along which a consumer sums."""

    name: str
    shape: tuple[int, ...]
    flat: dict[int, np.ndarray]
    grouped: dict[int, list[np.ndarray]]
    contracted: frozenset[int]

    @classmethod
    def of(
        cls, name: str, shape: Sequence[int], removed: Mapping[str, Indices], contracted: Sequence[int]
    ) -> Cut:
        """Raises PlanError for axes or indices that the tensor does not have."""
        shape = tuple(int(d) for d in shape)
        flat: dict[int, np.ndarray] = {}
        grouped: dict[int, list[np.ndarray]] = {}
        for key, indices in removed.items():
            axis = int(key)
            if not 0 <= axis < len(shape):
                raise PlanError(
                    f"the plan cuts axis {axis} of {name!r}, which has shape {shape}: wrong model"
                )
            if any(isinstance(i, list) for i in indices):
                lists = [checked_indices(name, i, shape[axis]) for i in indices]
                if axis == 0 or shape[0] % len(lists):
                    raise PlanError(f"the plan cuts {name!r} {shape} into {len(lists)} groups: wrong model")
                grouped[axis] = lists
            else:
                flat[axis] = checked_indices(name, indices, shape[axis])
        if len({len(lists) for lists in grouped.values()}) > 1:
            raise PlanError(
                f"the plan gives {name!r} two numbers of groups: it was not written by graphprune"
            )
        return cls(name, shape, flat, grouped, frozenset(contracted))

    def blocks(self) -> Iterator[tuple[np.ndarray, dict[int, np.ndarray]]]:
        """Per block of axis 0: its row numbers, and axis -> removed positions within it (axis 0 left out)."""
        count = len(next(iter(self.grouped.values()), [None]))
        size = self.shape[0] // count if self.shape else 0
        for block in range(count):
            columns = {a: i for a, i in self.flat.items() if a != 0}
            columns.update({a: lists[block] for a, lists in self.grouped.items()})
            yield np.arange(block * size, (block + 1) * size), columns

    def selections(self) -> Iterator[tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]]:
        """Per block: open meshes of the kept positions in the original and in the pruned tensor."""
        start = 0
        for rows, columns in self.blocks():
            kept = [np.setdiff1d(rows, self.flat.get(0, ()))]
            kept += [np.setdiff1d(np.arange(n), columns.get(a, ())) for a, n in enumerate(self.shape) if a]
            stored = [np.arange(start, start + kept[0].size), *(np.arange(k.size) for k in kept[1:])]
            start += kept[0].size
            yield np.ix_(*kept), np.ix_(*stored)

    def pruned_shape(self) -> tuple[int, ...]:
        """Raises PlanError where the groups do not keep equally much."""
        if not self.shape:
            return ()
        rows, inner = 0, set()
        for target, _ in self.selections():
            rows += target[0].size
            if target[0].size:
                inner.add(tuple(t.size for t in target[1:]))
        if len(inner) > 1:
            raise PlanError(f"the plan leaves the groups of {self.name!r} with different sizes")
        return (rows, *next(iter(inner), self.shape[1:]))

    def mask(self, array: np.ndarray, fill: np.ndarray) -> None:
        """Set what a consumer sums over and is removed to ``fill`` (broadcast to the array), in place."""
        full = np.broadcast_to(fill, array.shape)
        one = fill.reshape(()) if fill.size == 1 else None  # no need to gather a number per entry
        for axis in self.contracted:
            if axis == 0 and 0 in self.flat:
                array[self.flat[0]] = full[self.flat[0]] if one is None else one
            for rows, columns in self.blocks():
                if axis in columns and columns[axis].size:
                    others = [np.arange(n) for n in self.shape]
                    others[0], others[axis] = rows, columns[axis]
                    where = np.ix_(*others)
                    array[where] = full[where] if one is None else one


def checked_indices(name: str, indices: Any, size: int) -> np.ndarray:
    """``indices`` as an array. Raises PlanError where ``name`` does not have them."""
    array = np.asarray(indices, np.int64).reshape(-1)
    if array.size and not (array.min() >= 0 and array.max() < size):
        raise PlanError(f"the plan removes position {array.max()} of {name!r}, which has {size}: wrong model")
    return array
