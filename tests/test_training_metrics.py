"""Metrics against plain loops."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphprune.errors import DataError, OptionError
from graphprune.training.metrics import find_metric


@pytest.mark.parametrize("trailing", [(), (1, 1)])
@pytest.mark.parametrize("size", [7, 40])
def test_accuracy(trailing: tuple[int, ...], size: int) -> None:
    scores = torch.randn(40, 6, *trailing)
    labels = torch.randint(0, 6, (40,))
    metric = find_metric("accuracy")
    for start in range(0, 40, size):
        metric.update((scores[start : start + size], torch.zeros(3)), labels[start : start + size])
    right = sum(
        max(range(6), key=lambda c: float(s.flatten()[c])) == y for s, y in zip(scores, labels, strict=True)
    )
    assert metric.value() == right / 40
    assert metric.name == "accuracy"


def plain_miou(predicted: np.ndarray, labels: np.ndarray, classes: int) -> float:
    found = []
    known = (labels >= 0) & (labels < classes)
    for c in range(classes):
        both = int(((predicted == c) & (labels == c) & known).sum())
        either = int((((predicted == c) | (labels == c)) & known).sum())
        if either:
            found.append(both / either)
    return sum(found) / len(found)


@pytest.mark.parametrize("size", [(6, 8), (12, 16), (13, 5)])
def test_miou(size: tuple[int, int]) -> None:
    scores = torch.randn(10, 5, 6, 8)
    scores[:, 3] -= 100  # a class that is neither predicted nor, below, a label
    labels = torch.randint(0, 5, (10, *size))
    labels[labels == 3] = 0
    labels[:, 0] = torch.tensor([255, -1, 5, -100, 2])[torch.arange(size[1]) % 5]  # mostly no classes
    metric = find_metric("miou")
    for start in range(0, 10, 4):
        metric.update((scores[start : start + 4],), labels[start : start + 4, None])
    full = F.interpolate(scores, size, mode="bilinear") if size != (6, 8) else scores
    assert metric.value() == pytest.approx(plain_miou(full.argmax(1).numpy(), labels.numpy(), 5), abs=1e-6)


def test_miou_of_a_perfect_and_a_constant_model() -> None:
    labels = torch.randint(0, 4, (3, 8, 8))
    perfect, constant = find_metric("miou"), find_metric("miou")
    perfect.update((F.one_hot(labels, 4).permute(0, 3, 1, 2).float(),), labels)
    assert perfect.value() == 1
    constant.update((torch.tensor([1.0, 0, 0, 0]).reshape(1, 4, 1, 1).expand(3, 4, 8, 8),), labels)
    assert constant.value() == pytest.approx(float((labels == 0).double().mean()) / 4)


def test_a_function_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "user_metrics.py").write_text(
        "import numpy as np\n"
        "def error(outputs, labels):\n"
        "    assert isinstance(outputs, np.ndarray) and isinstance(labels, np.ndarray)\n"
        "    return np.abs(outputs[:, 0] - labels).mean()\n"
        "def both(outputs, labels):\n"
        "    return len(outputs) + len(outputs[1]) + (labels is None)\n"
        "def bad(outputs, labels):\n"
        "    raise KeyError('boxes')\n"
        "def nothing(outputs, labels):\n"
        "    return None\n"
        "def undefined(outputs, labels):\n"
        "    return float('nan')\n"
    )
    try:
        outputs, labels = torch.randn(10, 1, requires_grad=True), torch.randn(10)
        metric = find_metric("python:user_metrics:error")
        metric.update((outputs[:6],), labels[:6])
        metric.update((outputs[6:],), labels[6:])
        assert metric.value() == pytest.approx(float((outputs[:, 0] - labels).abs().mean().detach()))
        assert metric.name == "python:user_metrics:error"
        several = find_metric("python:user_metrics:both")
        several.update((torch.zeros(3), torch.zeros(3, dtype=torch.bfloat16)), None)
        several.update((torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)), None)
        assert several.value() == 2 + 5 + 1
        for name, text in (
            ("bad", "KeyError: 'boxes'"),
            ("nothing", "TypeError"),
            ("undefined", "returned nan"),
        ):
            metric = find_metric(f"python:user_metrics:{name}")
            metric.update((outputs,), labels)
            with pytest.raises(DataError, match=text):
                metric.value()
        with pytest.raises(OptionError, match="has no function eror"):
            find_metric("python:user_metrics:eror")
    finally:
        sys.modules.pop("user_metrics", None)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(OptionError, match="unknown metric 'acuracy': did you mean 'accuracy'"):
        find_metric("acuracy")
    with pytest.raises(OptionError, match="known are accuracy, miou"):
        find_metric("f1")


@pytest.mark.parametrize("name", ["accuracy", "miou"])
def test_labels_that_do_not_fit(name: str) -> None:
    scores = torch.randn(4, 5) if name == "accuracy" else torch.randn(4, 5, 3, 3)
    labels = torch.zeros(4 if name == "accuracy" else (4, 3, 3), dtype=torch.int64)
    with pytest.raises(DataError, match=f"{name} needs labels: give --eval-data that has them"):
        find_metric(name).update((scores,), None)
    for wrong_scores, wrong_labels in (
        (scores, labels[:3]),
        (scores, labels[..., None, None]),
        (scores[:, :1], labels),
        (torch.randn(4, 5, 2), labels),
        (torch.randn(4), labels),
    ):
        with pytest.raises(DataError, match=f"{name} needs a first output"):
            find_metric(name).update((wrong_scores,), wrong_labels)
    with pytest.raises(DataError, match="label 8 is out of range"):
        find_metric(name).update((scores,), labels + 8)
    with pytest.raises(DataError, match="labels hold float32"):
        find_metric(name).update((scores,), labels.float())
    with pytest.raises(DataError, match=f"{name}: "):
        find_metric(name).value()
