"""Numbers and shapes as a report writes them."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: float) -> str:
    """``274042`` -> ``274,042``."""
    return f"{number:,.0f}"


def share(part: float, whole: float) -> str:
    """``part`` of ``whole``, to a tenth of a percent; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def shape(sizes: Sequence[int] | None) -> str:
    """``[1, 3, 32, 32]`` -> ``1x3x32x32``; a dash where there is none."""
    if sizes is None:
        return "-"
    return "x".join(map(str, sizes)) or "scalar"


def plural(number: int, noun: str) -> str:
    """``1 group``, ``2 groups``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
