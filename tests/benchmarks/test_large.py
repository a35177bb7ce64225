"""Models of more than 2.5 GB: seconds and memory of analyze and prune, the proof included. Takes some 15 minutes.

``make bench`` prints the table, writes it to results/large.md and fails where a promise is broken: 3 times the
model's size in memory, mapped files included; no weights read by analyze. It needs 9 GB of disk.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.large_models import Usage, large_matrices, large_transformer, measured, megabytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

RESULTS = Path(__file__).parent / "results" / "large.md"
HEAD = """| model | command | seconds | peak MB | times its size | without mapped files |
| --- | --- | ---: | ---: | ---: | ---: |
"""
TIMES = 3
ANALYZE_MEGABYTES = 300

PRUNE = {
    "channels 0.3": ("--sparsity", 0.3),
    "channels 0.5": ("--sparsity", 0.5),
    "blocks 16x16 0.5": ("--structure", "block", "--block", "16x16x1x1", "--sparsity", 0.5),
    "2:4": ("--structure", "nm", "--nm", "2:4"),
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="graphprune-large-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Path]:
    return {
        "transformer": large_transformer(folder / "transformer.onnx", megabytes=2500, width=2048),
        "one matrix of 2.5 GB": large_matrices(folder / "matrix.onnx", 25_088, 25_088, 512, 10),
    }


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    text = HEAD + "".join(found)
    print("\n" + text)
    if len(found) == 2 * (1 + len(PRUNE)):  # all of them ran
        RESULTS.write_text(text, encoding="utf-8")


def row(name: str, command: str, used: Usage, size: float) -> str:
    times, own = used.peak / size, used.own / size
    return f"| {name}, {size:,.0f} MB | {command} | {used.seconds:.1f} | {used.peak:,.0f} | {times:.2f} | {own:.2f} |\n"


def test_analyze_reads_no_weights(models: dict[str, Path], rows: list[str]) -> None:
    for name, path in models.items():
        used = measured("analyze", path)
        rows.append(row(name, "analyze", used, megabytes(path)))
        assert used.code == 0, used.output
        assert used.peak < ANALYZE_MEGABYTES


@pytest.mark.parametrize("command", PRUNE)
@pytest.mark.parametrize("name", ["transformer", "one matrix of 2.5 GB"])
def test_prune_takes_three_times_the_size(
    name: str, command: str, models: dict[str, Path], rows: list[str], folder: Path
) -> None:
    size = megabytes(models[name])
    used = measured("prune", models[name], *PRUNE[command], "-o", folder / "small.onnx", "--force")
    rows.append(row(name, f"prune {command}", used, size))
    assert used.code == 0, used.output
    assert used.peak < TIMES * size
