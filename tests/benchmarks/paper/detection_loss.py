"""What a YOLOv5 detector minimises: boxes, objectness and classes of three scales.

The method is that of https://docs.ultralytics.com/yolov5/tutorials/architecture_description: an object is learned by
every anchor of about its size, in the cell of its centre and in the two nearest ones beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sample_models.yolo import ANCHORS, STRIDES

RATIO = 4.0
"""An anchor learns boxes that are less than this much longer or shorter than it, in both directions."""

BALANCE = (4.0, 1.0, 0.4)
"""Weights of the objectness of the scales: the fine maps have more cells, of which fewer hold an object."""

BOX, OBJECT, CLASS = 0.05, 1.0, 0.5
FULL_AREA, FULL_CLASSES = 640 * 640, 80
"""What the gains are for: objectness is scaled by the image's area, classes by their number."""


def loss(outputs: Sequence[Tensor], labels: Tensor) -> Tensor:
    """The loss of one batch, a scalar: a mean over boxes or cells, not multiplied by the batch's size.

    ``outputs``: raw maps ``[n, 3 (5 + classes), h, w]`` of strides 8, 16, 32. ``labels``: ``[n, K, 5]`` of class,
    centre x, centre y, width and height in pixels; rows with a negative class are no boxes.
    """
    wide = [maps.float() for maps in outputs]
    terms = [
        _of_scale(maps, labels.to(maps.device), stride, maps.new_tensor(anchors), balance)
        for maps, stride, anchors, balance in zip(wide, STRIDES, ANCHORS, BALANCE, strict=True)
    ]
    return torch.stack(terms).sum()


@dataclass(frozen=True)
class Targets:
    """Which places of a scale's maps learn which object; all tensors have t rows, one for each such pair.

    image, anchor, row, column: int64. box: centre x, centre y, width, height in pixels ``[t, 4]``. label: int64.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor
    label: Tensor


def assign(labels: Tensor, stride: int, anchors: Tensor, height: int, width: int) -> Targets:
    """The targets of a scale of ``height`` x ``width`` cells for labels ``[n, K, 5]`` and anchors ``[3, 2]``."""
    image, number = torch.nonzero(labels[..., 0] >= 0, as_tuple=True)
    rows = labels[image, number]
    ratio = rows[:, None, 3:] / anchors
    box, anchor = torch.nonzero(torch.maximum(ratio, 1 / ratio).amax(-1) < RATIO, as_tuple=True)

    place = rows[box, 1:3] / stride
    size = torch.tensor((width, height), device=labels.device)
    cell = place.long()
    step = torch.where(place - cell < 0.5, -1, 1)
    beside_x, beside_y = step * step.new_tensor((1, 0)), step * step.new_tensor((0, 1))
    cells = torch.stack((cell, cell + beside_x, cell + beside_y))
    which, pair = torch.nonzero(((cells >= 0) & (cells < size)).all(-1), as_tuple=True)

    column, row = cells[which, pair].unbind(1)
    box, anchor = box[pair], anchor[pair]
    return Targets(image[box], anchor, row, column, rows[box, 1:], rows[box, 0].long())


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """CIoU ``[t]`` of boxes ``[t, 4]`` of centre and size, 1 where they are the same (Zheng et al., 2020)."""
    tiny = 1e-7
    a_low, a_high = a[:, :2] - a[:, 2:] / 2, a[:, :2] + a[:, 2:] / 2
    b_low, b_high = b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2
    shared = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp_min(0).prod(1)
    iou = shared / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared + tiny)
    diagonal = (torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)).square().sum(1) + tiny
    distance = (a[:, :2] - b[:, :2]).square().sum(1) / diagonal
    turn = torch.atan(a[:, 2] / (a[:, 3] + tiny)) - torch.atan(b[:, 2] / (b[:, 3] + tiny))
    aspect = 4 / math.pi**2 * turn.square()
    with torch.no_grad():  # a weight, as the paper has it
        weight = aspect / (1 - iou + aspect + tiny)
    return iou - distance - weight * aspect


def _of_scale(maps: Tensor, labels: Tensor, stride: int, anchors: Tensor, balance: float) -> Tensor:
    count, channels, height, width = maps.shape
    values = maps.view(count, len(anchors), channels // len(anchors), height, width).permute(0, 1, 3, 4, 2)
    found = assign(labels, stride, anchors, height, width)
    at = (found.image, found.anchor, found.row, found.column)
    picked = values[at]

    corner = torch.stack((found.column, found.row), 1)
    centre = (picked[:, :2].sigmoid() * 2 - 0.5 + corner) * stride
    size = (picked[:, 2:4].sigmoid() * 2).square() * anchors[found.anchor]
    iou = complete_iou(torch.cat((centre, size), 1), found.box)

    wanted = iou.new_zeros(values[..., 4].numel())
    flat = ((found.image * len(anchors) + found.anchor) * height + found.row) * width + found.column
    # at least 0; where several objects claim a place, it is as sure as it fits the best of them
    wanted.scatter_reduce_(0, flat, iou.detach(), "amax")

    classes = picked.shape[1] - 5
    is_class = F.one_hot(found.label, classes).to(picked.dtype)
    objects = max(len(picked), 1)
    box = (1 - iou).sum() / objects
    sure = F.binary_cross_entropy_with_logits(values[..., 4], wanted.view(values.shape[:4]))
    kind = F.binary_cross_entropy_with_logits(picked[:, 5:], is_class, reduction="sum") / (objects * classes)

    area = height * width * stride**2 / FULL_AREA
    return BOX * box + OBJECT * area * balance * sure + CLASS * classes / FULL_CLASSES * kind
