"""The detection task of tests/benchmarks/paper: its labels, its loss and its metric."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sample_models.yolo import ANCHORS, STRIDES, Detect
from tests.benchmarks.paper import bccd
from tests.benchmarks.paper.detection_loss import assign, complete_iou, loss
from tests.benchmarks.paper.detection_metric import (
    average_precision_50,
    decode,
    detections,
    mean_average_precision,
)
from tests.benchmarks.trained import SHARED

_, HEIGHT, WIDTH = bccd.SHAPE
VALUES = 5 + bccd.CLASSES
SURE = 20.0
"""A logit so large that its sigmoid is 1 to float32's precision."""

Maps = tuple[torch.Tensor, ...]


@pytest.fixture
def coco() -> None:
    """For tests that measure average precision."""
    pytest.importorskip("pycocotools", reason="average precision needs pycocotools")
    pytest.importorskip("cv2", reason="average precision needs opencv-python-headless")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def boxes_apart(images: int = 3) -> torch.Tensor:
    """Labels of boxes of all sizes in squares of 80 pixels, which share no cell of an anchor: ``[n, 9, 5]``."""
    rng = np.random.default_rng(5)
    labels = np.full((images, 9, 5), -1.0, np.float32)
    for rows in labels:
        for number, square in enumerate(rng.choice(12, 7, replace=False)):
            corner = np.array((square % 4, square // 4)) * 80
            rows[number] = (number % 3, *(corner + rng.uniform(30, 50, 2)), *rng.uniform(15, 58, 2))
    return torch.from_numpy(labels)


def random_maps(images: int, generator: torch.Generator) -> Maps:
    return tuple(
        torch.randn(images, 3 * VALUES, HEIGHT // s, WIDTH // s, generator=generator) for s in STRIDES
    )


def places(labels: torch.Tensor, scale: int) -> Iterator[tuple[tuple[int, int, int, int], list[float]]]:
    """Image, anchor, row and column that learn a box, and its row of the labels: the rule, one by one."""
    stride = STRIDES[scale]
    for image, rows in enumerate(labels.tolist()):
        for box in rows:
            kind, x, y, w, h = box
            for anchor, (wide, high) in enumerate(ANCHORS[scale]):
                if kind < 0 or max(w / wide, wide / w, h / high, high / h) >= 4:
                    continue
                column, row = int(x / stride), int(y / stride)
                near = [(row, column)]
                near.append((row, column - 1 if x / stride - column < 0.5 else column + 1))
                near.append((row - 1 if y / stride - row < 0.5 else row + 1, column))
                for r, c in near:
                    if 0 <= r < HEIGHT // stride and 0 <= c < WIDTH // stride:
                        yield (image, anchor, r, c), box


def truth(labels: torch.Tensor) -> Maps:
    """Raw maps that say what ``labels`` say, at every place that has to learn it."""
    found = []
    for scale, stride in enumerate(STRIDES):
        maps = torch.full((len(labels), 3, VALUES, HEIGHT // stride, WIDTH // stride), -SURE)
        for (image, anchor, row, column), (kind, x, y, w, h) in places(labels, scale):
            wide, high = ANCHORS[scale][anchor]
            part = torch.tensor(
                [(x / stride - column + 0.5) / 2, (y / stride - row + 0.5) / 2]
                + [math.sqrt(w / wide) / 2, math.sqrt(h / high) / 2]
            )
            maps[image, anchor, :4, row, column] = part.logit()
            maps[image, anchor, [4, 5 + int(kind)], row, column] = SURE
        found.append(maps.flatten(1, 2))
    return tuple(found)


def arrays(maps: Maps) -> tuple[np.ndarray, ...]:
    return tuple(t.numpy() for t in maps)


def moved(labels: torch.Tensor, pixels: float) -> torch.Tensor:
    return labels + torch.tensor((0, pixels, 0, 0, 0))


# -- decoding ---------------------------------------------------------------------------------------


def test_decoding_is_that_of_the_model(generator: torch.Generator) -> None:
    """The model decodes square images only: its rows of the lower edge are cut off afterwards."""
    square = Detect(bccd.CLASSES, (4, 4, 4), image_size=WIDTH, decode=True)
    full = [torch.randn(2, 3 * VALUES, WIDTH // s, WIDTH // s, generator=generator) for s in STRIDES]
    expected = [
        square.boxes(maps, s).view(2, 3, WIDTH // s, WIDTH // s, VALUES)[:, :, : HEIGHT // s].flatten(1, 3)
        for maps, s in zip(full, STRIDES, strict=True)
    ]
    found = decode([maps[:, :, : HEIGHT // s].numpy() for maps, s in zip(full, STRIDES, strict=True)])
    np.testing.assert_allclose(found, torch.cat(expected, 1), rtol=1e-5, atol=1e-4)


# -- the metric -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("coco")
def test_average_precision_of_the_truth_is_one_and_of_moved_boxes_less() -> None:
    labels = boxes_apart()
    perfect = arrays(truth(labels))
    assert mean_average_precision(perfect, labels.numpy()) > 0.99
    assert average_precision_50(perfect, labels.numpy()) > 0.99
    slightly = mean_average_precision(arrays(truth(moved(labels, 3))), labels.numpy())
    assert 0.2 < slightly < 0.9
    assert average_precision_50(arrays(truth(moved(labels, 25))), labels.numpy()) < 0.2


@pytest.mark.usefixtures("coco")
def test_average_precision_counts_every_mistake() -> None:
    """Class 1 is called 2 everywhere: 0 for class 1; half of what is called 2 is wrong; nothing happens to 0."""
    labels = torch.full((1, 4, 5), -1.0)
    for number, kind in enumerate((0, 0, 1, 2)):
        labels[0, number] = torch.tensor((kind, 40 + 80 * number, 100, 40, 40))
    called = labels.clone()
    called[0, 2, 0] = 2
    outputs = truth(called)
    for maps in outputs:
        maps.unflatten(1, (3, VALUES))[:, :, 5:, :, maps.shape[3] * 3 // 4 :] *= 0.1
    # the right one of class 2 has a smaller score than the wrong one: precision 1/2 at every recall
    expected = (1 + 0 + 0.5) / 3
    assert average_precision_50(arrays(outputs), labels.numpy()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("coco")
def test_nothing_detected_is_zero_and_nothing_to_detect_is_refused() -> None:
    labels = boxes_apart()
    nothing = tuple(np.full_like(maps, -SURE) for maps in arrays(truth(labels)))
    assert mean_average_precision(nothing, labels.numpy()) == 0
    with pytest.raises(ValueError, match="no box"):
        mean_average_precision(nothing, np.full((3, 2, 5), -1, np.float32))


@pytest.mark.usefixtures("coco")
def test_suppression_is_by_class() -> None:
    """Two boxes almost alike: one is left if both are of a class, both if not. Boxes end with the image."""
    rows = np.zeros((3, VALUES), np.float32)
    rows[:, :5] = (50, 50, 40, 40, 1), (51, 50, 40, 40, 0.9), (310, 250, 40, 40, 0.5)
    rows[:, 5] = 1
    same = detections(rows, WIDTH, HEIGHT)
    np.testing.assert_allclose(same, [(30, 30, 40, 40, 1, 0), (290, 230, 30, 26, 0.5, 0)], atol=1e-6)
    rows[1, 5:] = 0, 1, 0
    assert detections(rows, WIDTH, HEIGHT)[:, 4:].tolist() == pytest.approx(
        np.array([(1, 0), (0.9, 1), (0.5, 0)])
    )


# -- the loss ---------------------------------------------------------------------------------------


def test_loss_of_the_truth_is_none_and_of_moved_boxes_is_some(generator: torch.Generator) -> None:
    labels = boxes_apart()
    at_truth = float(loss(truth(labels), labels))
    assert at_truth < 1e-4
    assert float(loss(truth(moved(labels, 2)), labels)) > 10 * at_truth
    assert float(loss(random_maps(3, generator), labels)) > 0.3


@pytest.mark.parametrize("crowded", [False, True])
def test_loss_is_that_of_plain_loops(crowded: bool, generator: torch.Generator) -> None:
    """Gains, balance, matching and the objectness that is asked for, place by place.

    Crowded: several boxes want the same places, which are as sure as the one that fits best.
    """
    labels, outputs = boxes_apart(), tuple(3 * t for t in random_maps(3, generator))
    if crowded:
        labels = torch.cat((labels, moved(labels, 1) * torch.tensor((1, 1, 1, 0.8, 1.2))), 1)
    expected = 0.0
    for scale, (maps, balance) in enumerate(zip(outputs, (4, 1, 0.4), strict=True)):
        values = maps.unflatten(1, (3, VALUES))
        wanted = torch.zeros_like(values[:, :, 4])
        boxes, kinds = [], []
        for (image, anchor, row, column), (kind, *box) in places(labels, scale):
            at = values[image, anchor, :, row, column]
            x, y, w, h = at[:4].sigmoid().tolist()
            wide, high = ANCHORS[scale][anchor]
            predicted = (2 * x - 0.5 + column) * STRIDES[scale], (2 * y - 0.5 + row) * STRIDES[scale]
            size = (2 * w) ** 2 * wide, (2 * h) ** 2 * high
            iou = float(complete_iou(torch.tensor([(*predicted, *size)]), torch.tensor([box])))
            wanted[image, anchor, row, column] = max(iou, float(wanted[image, anchor, row, column]))
            boxes.append(1 - iou)
            one = torch.eye(bccd.CLASSES)[int(kind)]
            kinds.append(float(F.binary_cross_entropy_with_logits(at[5:], one)))
        sure = float(F.binary_cross_entropy_with_logits(values[:, :, 4], wanted))
        expected += 0.05 * sum(boxes) / len(boxes) + 0.5 * 3 / 80 * sum(kinds) / len(kinds)
        expected += balance * sure * (WIDTH * HEIGHT) / 640**2
    assert float(loss(outputs, labels)) == pytest.approx(expected, rel=1e-4)
    last = tuple(t.to(memory_format=torch.channels_last) for t in outputs)
    assert float(loss(last, labels)) == pytest.approx(expected, rel=1e-4)


def test_overlap_of_boxes() -> None:
    """By hand: the half of one square; two squares apart; the same centre and area, but 4:1 and 1:4."""
    a = torch.tensor([(5.0, 5, 10, 10), (5, 5, 10, 10), (0, 0, 20, 5)])
    b = torch.tensor([(5.0, 2.5, 10, 5), (25, 5, 10, 10), (0, 0, 5, 20)])
    aspect = [(2 / math.pi * (math.atan(w) - math.atan(v))) ** 2 for w, v in ((1, 2), (1, 1), (4, 0.25))]
    iou = [0.5, 0, 25 / 175]
    apart = [2.5**2 / 200, 20**2 / (30**2 + 10**2), 0]
    expected = [i - d - v * v / (1 - i + v) for i, d, v in zip(iou, apart, aspect, strict=True)]
    assert complete_iou(a, b).tolist() == pytest.approx(expected, abs=1e-5)
    assert complete_iou(a, a).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("boxes", [True, False])
def test_gradients_are_finite_with_and_without_boxes(
    boxes: bool, dtype: torch.dtype, generator: torch.Generator
) -> None:
    labels = boxes_apart()
    labels[0, :, 0] = -1
    if not boxes:
        labels[..., 0] = -1
    outputs = tuple((5 * t).to(dtype).requires_grad_() for t in random_maps(3, generator))
    value = loss(outputs, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    for maps in outputs:
        gradient = maps.grad.unflatten(1, (3, VALUES))
        assert gradient.isfinite().all()
        assert gradient[:, :, 4].any()  # objectness is learnt everywhere
        assert not gradient[0, :, :4].any()  # boxes only where there are some
        assert bool(gradient[1:, :, :4].any()) == boxes


def test_boxes_in_a_corner_are_learnt_by_its_cell_alone() -> None:
    labels = torch.tensor(
        [[(0, 1, 1, 16, 16), (1, WIDTH - 1, HEIGHT - 1, 16, 16), (2, 1, HEIGHT - 1, 16, 16)]]
    )
    found = assign(labels, 8, torch.tensor([(16.0, 16), (64, 64), (20, 20)]), HEIGHT // 8, WIDTH // 8)
    places = torch.stack((found.label, found.anchor, found.row, found.column), 1).tolist()
    last_row, last_column = HEIGHT // 8 - 1, WIDTH // 8 - 1
    corners = ((0, 0, 0), (1, last_row, last_column), (2, last_row, 0))
    assert sorted(places) == [[kind, anchor, *cell] for kind, *cell in corners for anchor in (0, 2)]


# -- the data ---------------------------------------------------------------------------------------


def test_mirrored_boxes_lie_on_what_they_lay_on() -> None:
    images = np.zeros((1, 3, 20, 40), np.uint8)
    images[:, :, 5:9, 2:12] = 255
    labels = bccd.padded([bccd.centred(np.array([(1, 2, 5, 12, 9), (0, 3, 3, 3, 8)], np.float32))])
    assert labels.tolist() == [[[1, 7, 7, 10, 4]]]  # the empty box is gone
    more = np.concatenate((labels, np.full((1, 1, 5), [-1, 0, 0, 0, 0], np.float32)), 1)
    flipped, boxes = bccd.mirrored(images, more)
    assert boxes.tolist() == [[[1, 33, 7, 10, 4], [-1, 0, 0, 0, 0]]]
    lit = np.argwhere(flipped[0, 0])
    assert (lit.min(0).tolist(), lit.max(0).tolist()) == ([5, 28], [8, 37])  # 33 -+ 5, 7 -+ 2
    assert labels.tolist() == [[[1, 7, 7, 10, 4]]]


@pytest.mark.usefixtures("coco")
def test_files(tmp_path: Path) -> None:
    if not (SHARED / "data" / "bccd.zip").exists():
        pytest.skip("no ../shared/data with bccd.zip")
    bccd.write(tmp_path)
    for name, images in (("train", 2 * 205), ("validation", 87), ("test", 72)):
        with np.load(tmp_path / f"{name}.npz") as stored:
            labels = stored["labels"]
            assert stored["input"].shape == (images, *bccd.SHAPE)
            assert stored["input"].dtype == np.uint8
            assert labels.dtype == np.float32
            real = labels[labels[..., 0] >= 0]
            assert set(real[:, 0]) == set(range(bccd.CLASSES))
            assert (labels[..., 0] >= 0).any(1).all()
            assert (real[:, 1:3] - real[:, 3:] / 2 >= 0).all()
            assert (real[:, 1:3] + real[:, 3:] / 2 <= (WIDTH, HEIGHT)).all()
    # cells lie close together: some share a place of the maps, others are taken for one box
    labels = labels[:24]
    assert average_precision_50(arrays(truth(torch.from_numpy(labels))), labels) > 0.98
