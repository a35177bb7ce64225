"""Label arrays move as the data does: every function against numpy on labels written out in full."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphprune import labels as lab
from graphprune.labels import Labels, TooManyLabels


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(lab)
    assert result.attempted > 0
    assert result.failed == 0


def full(x: Labels) -> list[np.ndarray]:
    """Every term as an array of the tensor's shape, in an order that does not depend on representation."""
    sizes = [f for factors in x.factors for f in factors]
    return sorted((np.broadcast_to(t, sizes).reshape(x.shape) for t in x.terms), key=lambda a: int(a.max()))


def same(x: Labels, wanted: list[np.ndarray]) -> bool:
    found = full(x)
    wanted = sorted(wanted, key=lambda a: int(a.max(initial=0)))
    return len(found) == len(wanted) and all(map(np.array_equal, found, wanted))


@st.composite
def tensors(draw: st.DrawFn, max_terms: int = 1) -> Labels:
    """Up to ``max_terms`` axes tracked, each by labels of its own."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    count = draw(st.integers(0, min(max_terms, len(shape))))
    axes = draw(st.permutations(range(len(shape))))[:count]
    return Labels.vectors(shape, {a: 1 + 100 * i + np.arange(shape[a]) for i, a in enumerate(axes)})


@st.composite
def shapes_of(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Some shape with ``size`` elements, ones included."""
    shape, rest = [], size
    while rest > 1:
        divisors = [d for d in range(2, rest + 1) if rest % d == 0]
        shape.append(draw(st.sampled_from(divisors)))
        rest //= shape[-1]
        if draw(st.booleans()):
            shape.append(1)
    return tuple(shape) or (1,)


@settings(deadline=None)
@given(tensors(), st.data())
def test_reshape_is_numpy_s(x: Labels, data: st.DataObject) -> None:
    for _ in range(3):  # chains: the second starts from several factors per axis
        shape = data.draw(shapes_of(math.prod(x.shape)))
        wanted = [a.reshape(shape) for a in full(x)]
        x = lab.reshape(x, shape)
        assert x.shape == shape
        assert same(x, wanted)


@settings(deadline=None)
@given(tensors(max_terms=3), st.data())
def test_reshape_of_several_terms_moves_or_refuses(x: Labels, data: st.DataObject) -> None:
    shape = data.draw(shapes_of(math.prod(x.shape)))
    try:
        y = lab.reshape(x, shape)
    except ValueError:
        assert len(x.terms) > 1
        return
    assert same(y, [a.reshape(shape) for a in full(x)])


@settings(deadline=None)
@given(tensors(max_terms=3), st.data())
def test_transpose_is_numpy_s(x: Labels, data: st.DataObject) -> None:
    perm = data.draw(st.permutations(range(x.rank)))
    assert same(lab.transpose(x, perm), [a.transpose(perm) for a in full(x)])


@settings(deadline=None)
@given(tensors(), st.data())
def test_take_after_reshape_is_numpy_s(x: Labels, data: st.DataObject) -> None:
    x = lab.reshape(x, data.draw(shapes_of(math.prod(x.shape))))
    axis = data.draw(st.integers(0, x.rank - 1))
    size = x.shape[axis]
    bounds = st.integers(-size - 1, size + 1)
    cut = slice(data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([1, 2, -1, -2])))
    index = data.draw(st.lists(st.integers(0, size - 1), min_size=1).map(np.array))
    for key in (index, cut):
        chosen = np.arange(size)[key]
        assume(chosen.size > 0)
        assert same(lab.take(x, axis, key), [a.take(chosen, axis) for a in full(x)])


@settings(deadline=None)
@given(tensors(max_terms=2), st.integers(0, 4), st.integers(1, 3))
def test_inserted_axes_drop_again(x: Labels, axis: int, size: int) -> None:
    axis = min(axis, x.rank)
    grown = lab.insert_axis(x, axis, size)
    assert grown.shape == x.shape[:axis] + (size,) + x.shape[axis:]
    assert same(grown, [np.repeat(np.expand_dims(a, axis), size, axis) for a in full(x)])
    assert same(lab.drop_axes(grown, [axis]), full(x))
    resized = lab.resized(grown, axis, size + 1)
    assert same(lab.drop_axes(resized, [axis]), full(x))


@settings(deadline=None)
@given(tensors(), st.data())
def test_aligned_operands_share_factors_and_keep_their_labels(x: Labels, data: st.DataObject) -> None:
    first = lab.reshape(x, data.draw(shapes_of(math.prod(x.shape))))
    # a second way to the same shape, which splits its axes elsewhere
    between = lab.reshape(Labels.untracked(x.shape), data.draw(shapes_of(math.prod(x.shape))))
    second = lab.reshape(between, first.shape)
    row = Labels.vector(first.shape[-1:], 0, 500 + np.arange(first.shape[-1]))
    a, b, c = lab.aligned([first, second, row])
    assert a.factors == b.factors
    assert a.shape == b.shape
    assert same(a, full(first))
    assert same(b, [])
    assert c.factors[-1] == a.factors[-1]
    assert all(math.prod(f) == 1 for f in c.factors[:-1])
    assert same(c, [v.reshape([1] * (a.rank - 1) + [-1]) for v in full(row)])


def test_a_tracked_axis_has_one_vector() -> None:
    x = Labels.vector((2, 6, 4), 1, np.arange(1, 7))
    assert np.array_equal(lab.vector(x, 1), np.arange(1, 7))
    assert lab.vector(x, 2) is None
    assert np.array_equal(lab.vector(lab.reshape(x, (2, 24)), 1), np.repeat(np.arange(1, 7), 4))
    assert x.tracked() == (1,)


def test_two_labels_on_one_axis_are_refused() -> None:
    x = Labels.vectors((3, 4), {0: np.arange(1, 4), 1: np.arange(10, 14)})
    y = lab.reshape(x, (12,))
    with pytest.raises(ValueError, match="two terms"):
        lab.vector(y, 0)


def test_merged_space_is_not_written_out() -> None:
    x = Labels.vector((1, 128, 1024, 1024), 1, np.arange(1, 129))
    flat = lab.reshape(x, (1, 8, 16 * 1024 * 1024))
    assert sum(t.size for t in flat.terms) == 128
    assert same_size(lab.reshape(flat, x.shape), x)
    with pytest.raises(TooManyLabels):
        lab.vector(lab.reshape(x, (128 * 1024 * 1024,)), 0)


def same_size(x: Labels, y: Labels) -> bool:
    return x.shape == y.shape and np.array_equal(lab.vector(x, 1), lab.vector(y, 1))
