"""Damaged files: right, or one clear sentence; never a traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphprune
from tests.real_models import shared_models

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
TRIES = 60


def sources() -> list[Path]:
    """A file of ours, and small ones of others with local functions, LSTMs and int8 weights."""
    words = ("Rehan000", "test_model_1", "mnist_cntk", "ppocr_mobile")
    return [RESNET, *(p for p in shared_models() if any(w in p.name for w in words))]


@pytest.mark.parametrize("source", sources(), ids=lambda p: p.stem)
def test_flipped_and_missing_bytes(source: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(source.read_bytes(), np.uint8)
    damaged = tmp_path / "damaged.onnx"
    read, refused = 0, []
    for _ in range(TRIES):
        data = whole.copy()
        if rng.random() < 0.3:
            data = data[: rng.integers(data.size)]
        else:
            reach = int(rng.choice([400, 4000, data.size]))
            at = rng.integers(0, min(reach, data.size), rng.choice([1, 3, 20]))
            data[at] = rng.integers(0, 256, at.size)
        damaged.write_bytes(data.tobytes())
        try:
            graphprune.analyze(damaged).to_dict()
            read += 1
        except graphprune.GraphpruneError as error:
            refused.append(error)
    assert read
    assert refused
    assert all("\n" not in str(error) and error.exit_code == 2 for error in refused)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not a model at all", b"{}"])
def test_not_a_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(graphprune.ModelError, match=r"m\.onnx"):
        graphprune.analyze(path)
