"""The second part of the demo: the committed images are CIFAR-10's, and the run prints what it promises."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="trained masks need torch")
pytest.importorskip("PIL", reason="the images are stored as JPEG scans")

from sample_models import demo_trained
from sample_models.training_images import COUNT, NORMALISATION, STORED, decode

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def test_the_images_are_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(decode(tmp_path / "train.npz")) as found, np.load(NORMALISATION) as test_slice:
        images = found["input_u8"]
        assert images.shape == (COUNT, 3, 32, 32)
        assert images.dtype == np.uint8
        assert 100 < images.mean() < 140
        assert np.array_equal(found["mean"], test_slice["mean"])
        seen = {image.tobytes() for image in test_slice["input_u8"]}
    assert not seen & {image.tobytes() for image in images}
    if not (DATA / "datasets.py").exists():
        pytest.skip("no ../shared/data to compare with")
    monkeypatch.syspath_prepend(DATA)
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    from datasets import cifar10

    (wanted, _), _ = cifar10(COUNT, 1)
    assert np.array_equal(images, wanted.transpose(0, 3, 1, 2))


def test_a_small_part_of_cifar10_is_committed() -> None:
    assert STORED.stat().st_size + NORMALISATION.stat().st_size <= 2 * 2**20


def test_the_demo_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    demo_trained.main({"max_steps": 3, "batch_size": 8, "threads": 1})
    printed = capsys.readouterr().out
    for row in ("original", "magnitude, one shot", "SMART, masks hardened", "SMART, fine-tuned"):
        assert row in printed
    assert "274,042" in printed
