"""How good a YOLOv5 detector is: average precision as COCO defines it, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from sample_models.yolo import ANCHORS, STRIDES

MIN_SCORE = 0.01
SAME = 0.6
"""Of two boxes of a class with a greater IoU, the one with the smaller score goes."""

CANDIDATES, DETECTIONS = 1000, 100
"""At most so many per image go into the suppression, the best ones; and so many come out, as COCO has it."""


def mean_average_precision(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """AP@[.5:.95], 0 to 1, mean over the classes that occur.

    ``outputs``: raw maps ``[n, 3 (5 + classes), h, w]`` of strides 8, 16, 32. ``labels``: ``[n, K, 5]`` of class,
    centre x, centre y, width and height in pixels; rows with a negative class are no boxes. Raises ValueError where
    no row is a box.
    """
    return float(_precisions(outputs, labels).mean())


def average_precision_50(outputs: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """The same at an IoU of 0.5."""
    return float(_precisions(outputs, labels)[0])


def decode(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Centre x, centre y, width, height in pixels, objectness and class scores ``[n, sum of 3 h w, 5 + classes]``.

    ``maps``: raw ones ``[n, 3 (5 + classes), h, w]`` of strides 8, 16, 32. Rows: anchor, map row, map column.
    """
    found = []
    for raw, stride, anchors in zip(maps, STRIDES, ANCHORS, strict=True):
        count, channels, height, width = raw.shape
        values = expit(raw).reshape(count, len(anchors), -1, height, width).transpose(0, 1, 3, 4, 2)
        cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
        centre = (values[..., :2] * 2 - 0.5 + cells) * stride
        size = (values[..., 2:4] * 2) ** 2 * np.array(anchors)[:, None, None]
        boxes = np.concatenate((centre, size, values[..., 4:]), -1)
        found.append(boxes.reshape(count, -1, channels // len(anchors)))
    return np.concatenate(found, 1)


def detections(rows: np.ndarray, width: int, height: int) -> np.ndarray:
    """What an image's rows ``[r, 5 + classes]`` show: left, top, width, height, score, class ``[d, 6]``, best first."""
    import cv2

    scores = rows[:, 4:5] * rows[:, 5:]
    row, label = np.nonzero(scores > MIN_SCORE)
    score = scores[row, label]
    best = np.argsort(-score, kind="stable")[:CANDIDATES]
    row, label, score = row[best], label[best], score[best]
    edge = np.array((width, height))
    low = np.clip(rows[row, :2] - rows[row, 2:4] / 2, 0, edge)
    boxes = np.concatenate((low, np.clip(rows[row, :2] + rows[row, 2:4] / 2, 0, edge) - low), 1)
    found = np.concatenate((boxes, score[:, None], label[:, None]), 1)
    if not len(found):
        return found
    # classes are told apart by moving their boxes, which works for boxes that do not leave the image
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), score.tolist(), label.tolist(), MIN_SCORE, SAME)
    return found[np.asarray(kept, np.int64).reshape(-1)[:DETECTIONS]]


def _precisions(outputs: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Average precision at the IoUs .5, .55 ... .95: ``[10]``."""
    from pycocotools.cocoeval import COCOeval

    truth = _truth(labels)
    if not truth:
        raise ValueError("the labels hold no box to detect")
    height, width = (size * STRIDES[0] for size in outputs[0].shape[2:])
    found = [
        _annotation(image, kind, *box) | {"score": score}
        for image, rows in enumerate(decode(outputs))
        for *box, score, kind in detections(rows, width, height).tolist()
    ]
    if not found:
        return np.zeros(10)
    classes = outputs[0].shape[1] // len(ANCHORS[0]) - 5
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = COCOeval(
            _table(truth, len(labels), classes), _table(found, len(labels), classes), "bbox"
        )
        evaluation.params.maxDets = [DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][
        ..., 0, 0
    ]  # IoU, recall, class; -1 for classes that do not occur
    occurs = precision[0, 0] >= 0
    return precision[:, :, occurs].mean((1, 2))


def _truth(labels: np.ndarray) -> list[dict[str, Any]]:
    return [
        _annotation(image, kind, x - w / 2, y - h / 2, w, h)
        for image, rows in enumerate(labels.tolist())
        for kind, x, y, w, h in rows
        if kind >= 0
    ]


def _annotation(
    image: int, kind: float, left: float, top: float, width: float, height: float
) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": int(kind),
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def _table(annotations: list[dict[str, Any]], images: int, classes: int) -> Any:
    """pycocotools' table. Its numbers of annotations begin at 1, as 0 says that nothing matches."""
    from pycocotools.coco import COCO

    table = COCO()
    table.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": kind} for kind in range(classes)],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, 1)],
    }
    table.createIndex()
    return table
