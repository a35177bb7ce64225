"""Patterns as people write them: one reading for flags, target files and metadata."""

from __future__ import annotations

import pytest

from graphprune.errors import OptionError
from graphprune.notation import parse_block, parse_nm, times


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("16x8x1x1", (16, 8, 1, 1)),
        ("16X8", (16, 8, 1, 1)),
        ("-1x8x-1", (-1, 8, -1, 1)),
        ("2x2x1x1x3", (2, 2, 1, 1, 3)),
    ],
)
def test_blocks(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_block(text) == sizes
    assert parse_block(times(sizes)) == sizes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "16",
        "16x",
        "0x8",
        "-2x8",
        "1_6x8",
        " 16x8",
        "+16x8",
        "\uff11\uff16x8",
        "1x1x1x1x1x1",
        "9" * 5000 + "x1",
    ],
)
def test_no_blocks(text: str) -> None:
    with pytest.raises(OptionError, match="is not understood: write outputs x inputs x kernel"):
        parse_block(text)


def test_groups() -> None:
    assert parse_nm("2:4") == (2, 4)
    assert parse_nm("1:256") == (1, 256)


@pytest.mark.parametrize(
    "text", ["", "2", "4:4", "4:2", "0:4", "-1:4", "2:4:8", "\u0662:4", "1:" + "9" * 5000]
)
def test_no_groups(text: str) -> None:
    with pytest.raises(OptionError, match="is not understood: write kept:of, as 2:4"):
        parse_nm(text)


def test_the_sentence_names_who_wrote_it() -> None:
    with pytest.raises(
        OptionError, match=r"^--nm '1:257': groups of 257 cannot be stored, give at most 256$"
    ):
        parse_nm("1:257")
    with pytest.raises(OptionError, match=r"^target chip: block = '16' is not understood"):
        parse_block("16", "target chip: block = '16'")
