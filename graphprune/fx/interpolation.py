"""Resize along one axis as the ONNX standard defines it: which positions are read, and with which weights.

Numbers are float32, as in onnxruntime, so that ties fall the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One resized axis: sizes before and after, and the scale that coordinates are computed with."""

    before: int
    after: int
    scale: float


@dataclass(frozen=True)
class Rule:
    """How positions are interpolated: the operator's attributes."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: bool


def _half_pixel(o: np.ndarray, axis: Axis) -> np.ndarray:
    return (o + np.float32(0.5)) / np.float32(axis.scale) - np.float32(0.5)


def _pytorch_half_pixel(o: np.ndarray, axis: Axis) -> np.ndarray:
    return _half_pixel(o, axis) if axis.after > 1 else np.zeros_like(o)


def _half_pixel_symmetric(o: np.ndarray, axis: Axis) -> np.ndarray:
    adjustment = np.float32(axis.after) / (np.float32(axis.scale) * np.float32(axis.before))
    offset = np.float32(axis.before / 2) * (1 - adjustment)
    return offset + (o + np.float32(0.5)) / np.float32(axis.scale) - np.float32(0.5)


def _align_corners(o: np.ndarray, axis: Axis) -> np.ndarray:
    return o * np.float32(axis.before - 1) / np.float32(max(axis.after - 1, 1))


COORDINATES: dict[str, Callable[[np.ndarray, Axis], np.ndarray]] = {
    "align_corners": _align_corners,
    "asymmetric": lambda o, axis: o / np.float32(axis.scale),
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "tf_half_pixel_for_nn": lambda o, axis: (o + np.float32(0.5)) / np.float32(axis.scale),
}
"""coordinate_transformation_mode: position in the output -> position in the input."""

NEAREST: dict[str, Callable[[np.ndarray, Axis], np.ndarray]] = {
    "ceil": lambda x, _: np.ceil(x),
    "floor": lambda x, _: np.floor(x),
    # onnxruntime takes what float32 leaves within 1e-6 of a half for a half.
    "round_prefer_ceil": lambda x, _: np.floor(x.astype(np.float64) + 0.5 + 1e-6),
    "round_prefer_floor": lambda x, _: np.ceil(x.astype(np.float64) - 0.5 - 1e-6),
    # Before opset 11: rounded down when growing, up when shrinking.
    "simple": lambda x, axis: np.ceil(x) if axis.scale < 1 else np.floor(x),
}
"""nearest_mode: position in the input -> index."""


def weights(axis: Axis, rule: Rule) -> np.ndarray:
    """The axis' interpolation matrix, (after, before): every row sums to 1."""
    x = COORDINATES[rule.coordinates](np.arange(axis.after, dtype=np.float32), axis)
    matrix = np.zeros((axis.after, axis.before), np.float32)
    for positions, share in _TAPS[rule.mode](x, axis, rule):
        inside = np.clip(positions.astype(np.int64), 0, axis.before - 1)
        np.add.at(matrix, (np.arange(axis.after), inside), share.astype(np.float32))
    return matrix


Taps = list[tuple[np.ndarray, np.ndarray]]


def _nearest(x: np.ndarray, axis: Axis, rule: Rule) -> Taps:
    return [(NEAREST[rule.nearest](x, axis), np.ones_like(x))]


def _linear(x: np.ndarray, axis: Axis, rule: Rule) -> Taps:
    x = np.clip(x, 0, axis.before - 1)
    low = np.floor(x)
    return [(low, 1 - (x - low)), (low + 1, x - low)]


def _cubic(x: np.ndarray, axis: Axis, rule: Rule) -> Taps:
    """Keys' kernel over four neighbours; those outside repeat the border, or are left out."""
    a, low = rule.cubic_a, np.floor(x)
    positions = [low + i for i in (-1, 0, 1, 2)]
    shares = []
    for p in positions:
        d = np.abs(x - p)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        share = np.where(d <= 1, near, far)
        shares.append(np.where((p < 0) | (p >= axis.before), 0, share) if rule.exclude_outside else share)
    total = np.sum(shares, 0)
    return [(p, share / total) for p, share in zip(positions, shares, strict=True)]


_TAPS: dict[str, Callable[[np.ndarray, Axis, Rule], Taps]] = {
    "cubic": _cubic,
    "linear": _linear,
    "nearest": _nearest,
}
