"""Label arrays and what data movement does to them. Pure functions, no graph, no operators.

A tensor axis is a list of *factors* (sizes whose product, outermost first, is the axis size), so that
merging ``C, H, W`` into one axis need not materialise ``C*H*W`` labels. A *term* is an integer array
with one dimension per factor: full size where it varies, 1 where it does not. A position of the tensor
goes when its label in any term goes. An axis on which no term varies is *untracked*: nothing is ever
removed along it. Label 0 is frozen.

>>> x = Labels.vector((1, 6, 4, 4), 1, np.arange(1, 7))   # n c h w
>>> flat = reshape(x, (1, 96))                            # n (c h w)
>>> flat.factors
((1,), (6, 16))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from operator import mul

import numpy as np

MAX_MATERIALISED = 1 << 24
"""Labels that one axis may be expanded to; beyond it the caller freezes."""

Factors = tuple[tuple[int, ...], ...]


class TooManyLabels(Exception):
    """An axis would need more than MAX_MATERIALISED labels."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of one tensor; see the module's docstring."""

    factors: Factors
    terms: tuple[np.ndarray, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of every axis."""
        return tuple(math.prod(f) for f in self.factors)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.factors)

    @classmethod
    def untracked(cls, shape: Sequence[int]) -> Labels:
        """A tensor along which nothing is removed."""
        return cls(tuple((int(s),) for s in shape))

    @classmethod
    def vector(cls, shape: Sequence[int], axis: int, ids: np.ndarray | None) -> Labels:
        """A tensor tracked along one axis: ``ids`` has that axis' size (None or size 1: untracked)."""
        return cls.vectors(shape, {axis: ids})

    @classmethod
    def vectors(cls, shape: Sequence[int], ids: dict[int, np.ndarray | None]) -> Labels:
        """A tensor tracked along several axes independently."""
        rank = len(shape)
        terms = []
        for axis, vector in ids.items():
            if vector is not None and shape[axis] > 1:
                dims = [1] * rank
                dims[axis] = shape[axis]
                terms.append(np.reshape(vector, dims))
        return cls(tuple((int(s),) for s in shape), tuple(terms))

    def dims(self, axis: int) -> range:
        """The term dimensions that make up ``axis``."""
        start = sum(len(f) for f in self.factors[:axis])
        return range(start, start + len(self.factors[axis]))

    def axes_of(self, term: np.ndarray) -> tuple[int, ...]:
        """The axes along which ``term`` varies."""
        return tuple(a for a in range(self.rank) if any(term.shape[d] > 1 for d in self.dims(a)))

    def on(self, axis: int) -> tuple[np.ndarray, ...]:
        """The terms that vary along ``axis``."""
        dims = self.dims(axis)
        return tuple(t for t in self.terms if any(t.shape[d] > 1 for d in dims))

    def tracked(self) -> tuple[int, ...]:
        """Axes along which something may be removed."""
        return tuple(a for a in range(self.rank) if self.on(a))

    def without(self, terms: Sequence[np.ndarray]) -> Labels:
        """The same tensor less some of its terms (compared by identity)."""
        gone = {id(t) for t in terms}
        return Labels(self.factors, tuple(t for t in self.terms if id(t) not in gone))


def _check(size: int) -> None:
    if size > MAX_MATERIALISED:
        raise TooManyLabels(str(size))


def merged(x: Labels, axis: int) -> Labels:
    """``x`` with ``axis`` as one single factor: labels along it are written out in full."""
    if len(x.factors[axis]) == 1:
        return x
    terms = _merge_dims(list(x.terms), x.dims(axis).start, x.factors[axis])
    return Labels(x.factors[:axis] + ((math.prod(x.factors[axis]),),) + x.factors[axis + 1 :], tuple(terms))


def vector(x: Labels, axis: int) -> np.ndarray | None:
    """Labels along ``axis``, ``[size]``, or None where it is untracked.

    Every term on the axis must vary along this axis alone (see Coupler.settle).
    """
    if not x.on(axis):
        return None
    x = merged(x, axis)
    (term,) = x.on(axis)
    return term.reshape(-1)


# -- re-shaping ---------------------------------------------------------------------------------


def _split_dim(terms: list[np.ndarray], dim: int, outer: int, inner: int) -> list[np.ndarray]:
    return [
        t.reshape(t.shape[:dim] + ((1, 1) if t.shape[dim] == 1 else (outer, inner)) + t.shape[dim + 1 :])
        for t in terms
    ]


def _merge_dims(terms: list[np.ndarray], start: int, sizes: Sequence[int]) -> list[np.ndarray]:
    """Merge consecutive dims: free where nothing varies, written out in full otherwise."""
    out = []
    for t in terms:
        part = t.shape[start : start + len(sizes)]
        if all(p == 1 for p in part):
            length = 1
        else:
            target = t.shape[:start] + tuple(sizes) + t.shape[start + len(sizes) :]
            _check(math.prod(target))
            t = np.broadcast_to(t, target)
            length = math.prod(sizes)
        out.append(t.reshape(t.shape[:start] + (length,) + t.shape[start + len(sizes) :]))
    if sum(t.shape[start] > 1 for t in out) > 1:
        raise ValueError("two terms vary along one merged axis")
    return out


def reshape(x: Labels, shape: Sequence[int]) -> Labels:
    """Labels after a row-major reshape to ``shape`` (ONNX Reshape, Flatten, Squeeze, Unsqueeze).

    Factor groups of the two shapes are matched; where they do not divide each other the labels of the
    group are written out. Raises TooManyLabels, or ValueError where two terms would share an axis.
    """
    sizes = list(chain.from_iterable(x.factors))
    terms = list(x.terms)
    # untracked neighbours are one factor: they may be split anywhere
    dim = 0
    while dim + 1 < len(sizes):
        if all(t.shape[dim] == 1 and t.shape[dim + 1] == 1 for t in terms):
            terms = _merge_dims(terms, dim, sizes[dim : dim + 2])
            sizes[dim : dim + 2] = [sizes[dim] * sizes[dim + 1]]
        else:
            dim += 1
    factors: list[tuple[int, ...]] = []
    dim = 0
    for target in shape:
        axis: list[int] = []
        rest = int(target)
        while rest > 1:
            while dim < len(sizes) and sizes[dim] == 1 and all(t.shape[dim] == 1 for t in terms):
                terms = [t.reshape(t.shape[:dim] + t.shape[dim + 1 :]) for t in terms]
                del sizes[dim]
            size = sizes[dim]
            if rest % size == 0:
                axis.append(size)
                rest //= size
                dim += 1
            elif size % rest == 0:
                terms = _split_dim(terms, dim, rest, size // rest)
                sizes[dim : dim + 1] = [rest, size // rest]
                axis.append(rest)
                rest = 1
                dim += 1
            else:  # e.g. (6, 4) -> (8, 3): write the pair out and split anew
                terms = _merge_dims(terms, dim, sizes[dim : dim + 2])
                sizes[dim : dim + 2] = [sizes[dim] * sizes[dim + 1]]
        if not axis:
            terms = [t.reshape(t.shape[:dim] + (1,) + t.shape[dim:]) for t in terms]
            sizes.insert(dim, 1)
            axis.append(1)
            dim += 1
        factors.append(tuple(axis))
    if dim < len(sizes):  # trailing factors of size 1
        terms = [t.reshape(t.shape[:dim]) for t in terms]
    return Labels(tuple(factors), tuple(terms))


def transpose(x: Labels, perm: Sequence[int]) -> Labels:
    """Labels after ONNX Transpose."""
    order = [d for a in perm for d in x.dims(a)]
    return Labels(tuple(x.factors[a] for a in perm), tuple(t.transpose(order) for t in x.terms))


def take(x: Labels, axis: int, index: np.ndarray | slice) -> Labels:
    """Positions ``index`` along ``axis``; labels of other axes pass through."""
    if not x.on(axis):
        size = math.prod(x.factors[axis])
        length = len(range(*index.indices(size))) if isinstance(index, slice) else int(index.size)
        return _resized(x, axis, length)
    x = merged(x, axis)
    (dim,) = x.dims(axis)
    key = (slice(None),) * dim + (index,)
    terms = tuple(t[key] if t.shape[dim] > 1 else t for t in x.terms)
    length = next(t.shape[dim] for t, old in zip(terms, x.terms, strict=True) if old.shape[dim] > 1)
    return Labels(x.factors[:axis] + ((length,),) + x.factors[axis + 1 :], terms)


def _resized(x: Labels, axis: int, length: int) -> Labels:
    """An untracked axis given another size."""
    dims = x.dims(axis)
    terms = tuple(t.reshape(t.shape[: dims.start] + (1,) + t.shape[dims.stop :]) for t in x.terms)
    return Labels(x.factors[:axis] + ((length,),) + x.factors[axis + 1 :], terms)


def resized(x: Labels, axis: int, length: int) -> Labels:
    """``x`` with the untracked ``axis`` given another size (pooling, resizing, padding in space)."""
    if x.on(axis):
        raise ValueError(f"axis {axis} is tracked")
    return _resized(x, axis, length)


def drop_axes(x: Labels, axes: Sequence[int]) -> Labels:
    """``x`` less some untracked axes."""
    gone = {d for a in axes for d in x.dims(a)}
    terms = tuple(t.reshape([s for d, s in enumerate(t.shape) if d not in gone]) for t in x.terms)
    return Labels(tuple(f for a, f in enumerate(x.factors) if a not in set(axes)), terms)


def insert_axis(x: Labels, axis: int, size: int = 1) -> Labels:
    """``x`` with a new untracked axis before position ``axis``."""
    dim = x.dims(axis).start if axis < x.rank else sum(len(f) for f in x.factors)
    terms = tuple(t.reshape(t.shape[:dim] + (1,) + t.shape[dim:]) for t in x.terms)
    return Labels(x.factors[:axis] + ((size,),) + x.factors[axis:], terms)


# -- several tensors ------------------------------------------------------------------------------


def _boundaries(factors: tuple[int, ...]) -> set[int]:
    return set(accumulate(reversed(factors), mul))


def _refine(x: Labels, axis: int, factors: tuple[int, ...]) -> Labels:
    """``axis`` cut into ``factors``, a refinement of what it has."""
    if x.factors[axis] == factors:
        return x
    terms = list(x.terms)
    dim = x.dims(axis).start
    have = list(x.factors[axis])
    for position, want in enumerate(factors):
        if have[position] != want:
            rest = have[position] // want
            terms = _split_dim(terms, dim + position, want, rest)
            have[position : position + 1] = [want, rest]
    return Labels(x.factors[:axis] + (factors,) + x.factors[axis + 1 :], tuple(terms))


def aligned(operands: Sequence[Labels]) -> list[Labels]:
    """Operands of a broadcast, brought to one rank and one factorisation of every axis.

    Axes of size 1 that broadcast get factors of size 1.
    """
    rank = max(x.rank for x in operands)
    out = list(operands)
    for i, x in enumerate(out):
        for _ in range(rank - x.rank):
            x = insert_axis(x, 0)
        out[i] = x
    for axis in range(rank):
        size = max(math.prod(x.factors[axis]) for x in out)
        full = [i for i, x in enumerate(out) if math.prod(x.factors[axis]) == size]
        cuts = sorted(set().union(*(_boundaries(out[i].factors[axis]) for i in full)) - {1})
        if all(b % a == 0 for a, b in pairwise(cuts)):
            inner_first = [b // a for a, b in zip([1, *cuts], cuts, strict=False)] or [1]
            factors = tuple(reversed(inner_first))
            for i in full:
                squeezed = _drop_ones(out[i], axis)
                out[i] = _refine(squeezed, axis, factors)
        else:
            for i in full:
                out[i] = merged(out[i], axis)
            factors = (size,)
        for i, x in enumerate(out):
            if i not in full:
                dims = x.dims(axis)
                ones = (1,) * len(factors)
                terms = tuple(t.reshape(t.shape[: dims.start] + ones + t.shape[dims.stop :]) for t in x.terms)
                out[i] = Labels(x.factors[:axis] + (ones,) + x.factors[axis + 1 :], terms)
    return out


def _drop_ones(x: Labels, axis: int) -> Labels:
    """``axis`` without its factors of size 1 (one is kept where all are)."""
    factors = x.factors[axis]
    if 1 not in factors or len(factors) == 1:
        return x
    start = x.dims(axis).start
    gone = {start + i for i, f in enumerate(factors) if f == 1}
    kept = tuple(f for f in factors if f > 1)
    if not kept:
        gone.discard(start)
        kept = (1,)
    terms = tuple(t.reshape([s for d, s in enumerate(t.shape) if d not in gone]) for t in x.terms)
    return Labels(x.factors[:axis] + (kept,) + x.factors[axis + 1 :], terms)
