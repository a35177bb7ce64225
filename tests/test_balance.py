"""Sets of channels that keep every count constraint balanced, against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.balance import bundles

Rows = list[np.ndarray]


def balanced(chosen: Sequence[int], rows: Rows) -> bool:
    """Whether every row of every constraint loses equally many of ``chosen``."""
    return all(len({int(np.isin(row, chosen).sum()) for row in r}) == 1 for r in rows)


def most_removable(channels: Sequence[int], rows: Rows) -> int:
    """Size of the largest balanced set."""
    for size in range(len(channels), 0, -1):
        if any(balanced(c, rows) for c in combinations(channels, size)):
            return size
    return 0


def minimal(bundle: Sequence[int], rows: Rows) -> bool:
    """No smaller non-empty part of the bundle is balanced."""
    return not any(balanced(c, rows) for n in range(1, len(bundle)) for c in combinations(bundle, n))


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Rows]:
    """Eight channels or fewer of twelve, and up to three partitions of them into rows."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from([(2, 6), (3, 4), (4, 3), (2, 4), (2, 3)]))
        chosen = draw(st.permutations(range(1, 13)))[: kind[0] * kind[1]]
        rows.append(np.array(chosen).reshape(kind))
    channels = draw(st.lists(st.integers(1, 12), min_size=1, max_size=8, unique=True))
    scores = draw(st.lists(st.integers(0, 50), min_size=len(channels), max_size=len(channels)))
    return np.array(channels), np.array(scores, float), rows


@settings(deadline=None, max_examples=60, derandomize=True)
@given(problems())
def test_bundles_are_balanced_minimal_and_disjoint(problem: tuple[np.ndarray, np.ndarray, Rows]) -> None:
    channels, scores, rows = problem
    found = [b.tolist() for b in bundles(channels, scores, rows)]
    every = [c for b in found for c in b]
    assert len(every) == len(set(every))
    assert set(every) <= set(channels.tolist())
    for bundle in found:
        assert balanced(bundle, rows)
        assert minimal(bundle, rows)
    # what is left over holds no balanced set: nothing removable is left out
    rest = sorted(set(channels.tolist()) - set(every))
    assert most_removable(rest, rows) == 0


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.permutations(range(1, 9)), st.lists(st.integers(0, 50), min_size=8, max_size=8))
def test_two_crossing_partitions_cover_everything(order: list[int], scores: list[int]) -> None:
    rows = [np.arange(1, 9).reshape(2, 4), np.array(order).reshape(2, 4)]
    found = bundles(np.arange(1, 9), np.array(scores, float), rows)
    assert sorted(c for b in found for c in b.tolist()) == list(range(1, 9))
    assert all(balanced(b.tolist(), rows) for b in found)


def test_the_cheapest_go_first_within_one_partition() -> None:
    rows = [np.array([[1, 2, 3], [4, 5, 6]])]
    found = bundles(np.arange(1, 7), np.array([3, 1, 2, 30, 20, 10.0]), rows)
    assert [sorted(b.tolist()) for b in found] == [[2, 6], [3, 5], [1, 4]]


def test_without_constraints_every_channel_is_a_set() -> None:
    found = bundles(np.array([7, 8, 9]), np.array([3.0, 1.0, 2.0]), [])
    assert [b.tolist() for b in found] == [[8], [9], [7]]


def test_nothing_goes_where_a_row_has_nothing_to_lose() -> None:
    rows = [np.arange(1, 17).reshape(4, 4)]
    assert bundles(np.array([1, 2, 5, 6]), np.ones(4), rows) == []
