"""Resize and Upsample: torch's interpolation where it computes the same, indexing or a small matrix elsewhere.

Whether torch computes the same is not decided by a table of attributes: its interpolation matrix of every
axis is compared with the one that the ONNX standard defines.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F

from graphprune.fx.conversion import Conversion
from graphprune.fx.interpolation import COORDINATES, Axis, Rule, weights
from graphprune.fx.registry import converter
from graphprune.graph import Node

ROUNDING = 5e-7
"""Error of an interpolation weight per position of an axis, both sides in float32."""

_CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "nearest": [{"mode": "nearest"}, {"mode": "nearest-exact"}],
    "linear": [{"mode": "linear", "align_corners": False}, {"mode": "linear", "align_corners": True}],
    "cubic": [{"mode": "bicubic", "align_corners": False}, {"mode": "bicubic", "align_corners": True}],
}
"""What torch has for each mode of the operator, for one axis."""

_BY_RANK = {
    ("linear", 3): "linear",
    ("linear", 4): "bilinear",
    ("linear", 5): "trilinear",
    ("bicubic", 4): "bicubic",
    **{(mode, rank): mode for mode in ("nearest", "nearest-exact") for rank in (3, 4, 5)},
}
"""(mode for one axis, rank of the tensor) -> mode for the tensor."""


@converter("Resize", literals=(1, 2, 3))
def resize(
    c: Conversion, n: Node, x: fx.Node, _roi: None = None, _scales: None = None, _sizes: None = None
) -> fx.Node:
    """Opset 10 reads its scales second and has no coordinate modes; later ones have."""
    if n.opset < 11:
        return _upsampled(c, n, x)
    rule = Rule(
        n.attr("mode", "nearest"),
        n.attr("coordinate_transformation_mode", "half_pixel"),
        n.attr("nearest_mode", "round_prefer_floor"),
        n.attr("cubic_coeff_a", -0.75),
        bool(n.attr("exclude_outside", 0)),
    )
    if rule.coordinates not in COORDINATES or n.attr("antialias", 0):
        what = "antialias" if n.attr("antialias", 0) else rule.coordinates
        raise c.refuse(n, f"{what} is not supported; resize to the final size in another mode")
    return _resized(c, n, x, _axes(c, n), rule, scaled=_given(n, 2))


@converter("Upsample", literals=(1,))
def upsample(c: Conversion, n: Node, x: fx.Node, _scales: None = None) -> fx.Node:
    """Scales in an attribute (opset 7) or the second input."""
    return _upsampled(c, n, x)


def _upsampled(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """The form without coordinate modes: asymmetric coordinates."""
    stored = c.literal(n, 1)
    scales = n.attr("scales") if stored is None else [float(s) for s in stored]
    before = c.shape(n)
    axes = {i: Axis(size, int(size * s), s) for i, (size, s) in enumerate(zip(before, scales, strict=True))}
    mode = {"bilinear": "linear"}.get(n.attr("mode", "nearest"), n.attr("mode", "nearest"))
    rule = Rule(mode, "asymmetric", "simple", -0.75, False)
    return _resized(c, n, x, axes, rule, scaled=True)


def _given(n: Node, index: int) -> bool:
    value = n.input(index)
    return value is not None and value.size > 0


def _axes(c: Conversion, n: Node) -> dict[int, Axis]:
    """The resized axes, from scales or from sizes."""
    before = c.shape(n)
    axes = [int(a) % len(before) for a in n.attr("axes") or range(len(before))]
    if _given(n, 2):
        scales = c.literal(n, 2)
        pairs = zip(axes, [] if scales is None else scales.tolist(), strict=True)
        return {a: Axis(before[a], int(np.floor(np.float32(before[a]) * np.float32(s))), s) for a, s in pairs}
    sizes = dict(zip(axes, c.ints(n, 3) or [], strict=True))
    if any(a != 0 and not isinstance(size, int) for a, size in sizes.items()):
        raise c.refuse(n, "a size other than that of the batch axis follows the batch size")
    fixed = {a: size for a, size in sizes.items() if isinstance(size, int)}
    ratios = {a: size / before[a] for a, size in fixed.items()}
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return {a: Axis(before[a], size, ratios[a]) for a, size in fixed.items()}
    scale = min(ratios.values()) if policy == "not_larger" else max(ratios.values())
    return {a: Axis(before[a], int(np.floor(scale * before[a] + 0.5)), scale) for a in fixed}


def _resized(
    c: Conversion, n: Node, x: fx.Node, axes: dict[int, Axis], rule: Rule, *, scaled: bool
) -> fx.Node:
    """Torch's interpolation of the spatial axes where it agrees, else one axis after the other."""
    matrices = {i: m for i, axis in axes.items() if not _is_identity(m := weights(axis, rule))}
    if 0 in matrices:
        raise c.refuse(n, "it resizes the batch axis")
    if 1 not in matrices:
        shape = c.shape(n)
        space = [axes.get(i, Axis(shape[i], shape[i], 1.0)) for i in range(2, len(shape))]
        found = _torch_options(space, [matrices.get(i + 2) for i in range(len(space))], rule, scaled=scaled)
        if found is not None:
            return c.emit(F.interpolate, x, **found)
    for i, matrix in matrices.items():
        x = _one_axis(c, x, i, matrix, rule)
    return x


def _is_identity(matrix: np.ndarray) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))


def _torch_options(
    space: list[Axis], matrices: list[np.ndarray | None], rule: Rule, *, scaled: bool
) -> dict[str, Any] | None:
    """Arguments of torch.nn.functional.interpolate that give these matrices, or None.

    Scales come first, since with them the module takes images of other sizes.
    """
    targets: list[tuple[str, list[Any]]] = [("size", [axis.after for axis in space])]
    if scaled:
        targets.insert(0, ("scale_factor", [float(axis.scale) for axis in space]))
    for (target, values), options in product(targets, _CANDIDATES[rule.mode]):
        mode = _BY_RANK.get((options["mode"], len(space) + 2))
        agrees = (
            m is None or _agrees(m, axis.before, options, {target: v})
            for axis, m, v in zip(space, matrices, values, strict=True)
        )
        if mode is not None and all(agrees):
            return {target: values, **options, "mode": mode}
    return None


def _agrees(matrix: np.ndarray, before: int, options: dict[str, Any], target: dict[str, Any]) -> bool:
    """Whether torch interpolates one axis by ``matrix``, up to float32 coordinates."""
    probe = torch.eye(before)[None]  # every position is a channel: (1, before, before)
    if options["mode"] == "bicubic":  # exists for images only
        probe, target = probe[..., None], {name: [value, 1] for name, value in target.items()}
    got = F.interpolate(probe, **options, **target).reshape(before, -1).T.numpy()
    # Both sides compute coordinates in float32: their error grows with the size.
    return got.shape == matrix.shape and np.allclose(got, matrix, rtol=0, atol=ROUNDING * sum(matrix.shape))


def _one_axis(c: Conversion, x: fx.Node, axis: int, matrix: np.ndarray, rule: Rule) -> fx.Node:
    if rule.mode == "nearest":
        return c.emit(torch.index_select, x, axis, c.buffer(matrix.argmax(1), "resize_index"))
    table = c.buffer(np.ascontiguousarray(matrix.T), "resize_weights")
    last = c.emit(torch.matmul, c.emit(torch.transpose, x, axis, -1), table)
    return c.emit(torch.transpose, last, axis, -1)
