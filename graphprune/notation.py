"""Words for patterns, as flags, target files and metadata spell them: structures, axes, blocks, N:M."""

from __future__ import annotations

import re
from collections.abc import Iterable

from graphprune.errors import OptionError

STRUCTURES = ("channel", "block", "nm", "branch")
"""What a plan removes: whole channels, weights in blocks or N:M groups (which become zeros), or residual branches."""

AXES = ("input", "output")
"""Along which N:M groups may lie; hardware that skips zeros in a sum wants inputs."""

LARGEST_GROUP = 256
"""M of N:M: sidecars store positions inside a group in 8 bits."""

_SIZE = r"(?:-1|[1-9]\d{0,8})"


def parse_block(text: str, subject: str = "") -> tuple[int, ...]:
    """``16x8x1x1`` -> ``(16, 8, 1, 1)``: outputs, inputs, kernel; missing kernel sizes are 1, -1 is a whole axis.

    Raises OptionError, whose sentence begins with ``subject`` (by default the flag).
    """
    if not re.fullmatch(f"{_SIZE}(?:x{_SIZE}){{1,4}}", text.lower(), re.ASCII):
        where = subject or f"--block {text!r}"
        raise OptionError(f"{where} is not understood: write outputs x inputs x kernel, as 16x8x1x1")
    sizes = tuple(int(part) for part in text.lower().split("x"))
    return sizes + (1,) * (4 - len(sizes))


def parse_nm(text: str, subject: str = "") -> tuple[int, int]:
    """``2:4`` -> ``(2, 4)``. Raises OptionError, whose sentence begins with ``subject`` (by default the flag)."""
    where = subject or f"--nm {text!r}"
    match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", text, re.ASCII)
    n, m = (int(g) for g in match.groups()) if match else (0, 0)
    if not 0 < n < m:
        raise OptionError(f"{where} is not understood: write kept:of, as 2:4")
    if m > LARGEST_GROUP:
        raise OptionError(f"{where}: groups of {m} cannot be stored, give at most {LARGEST_GROUP}")
    return n, m


def times(sizes: Iterable[int]) -> str:
    """``(16, 8, 1, 1)`` -> ``16x8x1x1``."""
    return "x".join(map(str, sizes))
