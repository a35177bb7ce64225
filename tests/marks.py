"""Marks that several test files share."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest


def slow(names: Iterable[str], few: Collection[str]) -> list:
    """``names`` as parameters; ``few`` of them only in ``make test-slow``."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in few else n for n in names]
