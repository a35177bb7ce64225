"""Pooling, resizing and sampling: channels pass, space changes."""

from __future__ import annotations

import numpy as np

from graphprune import labels as lab
from graphprune.coupler import Coupler
from graphprune.edits import SetInput
from graphprune.graph import Node
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.rules.registry import rule


def in_space(c: Coupler, n: Node, x: Labels, shape: tuple[int, ...]) -> Labels:
    """``x`` with axes from 2 on treated as space and given the sizes of ``shape``."""
    x = c.freeze_axes(x, range(2, x.rank), Reason.SPACE, n)
    for axis in range(2, len(shape)):
        x = lab.resized(x, axis, shape[axis])
    return x


@rule("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
def pool(c: Coupler, n: Node, x: Labels) -> tuple[Labels, ...]:
    """Channels pass; the indices of MaxPool, where read, count channels and freeze."""
    if len(n.outputs) > 1 and (n.outputs[1].consumers or n.outputs[1].is_output):
        x = c.freeze_axes(x, range(x.rank), Reason.DATA_DEPENDENT, n)
    y = in_space(c, n, x, n.outputs[0].shape or ())
    return tuple(y for _ in n.outputs)


@rule("MaxRoiPool", "RoiAlign", "GridSample", "com.microsoft::GridSample", "Crop", "ImageScaler")
def sample(c: Coupler, n: Node, x: Labels, *others: Labels | None) -> Labels:
    """Channels of the first input pass; coordinates stay as they are."""
    for other in others:
        c.freeze_all(other, Reason.DATA_DEPENDENT, n)
    shape = n.outputs[0].shape or ()
    x = c.freeze_axes(x, [0, *range(2, x.rank)], Reason.SPACE, n)
    if n.op == "ImageScaler":  # its bias attribute has one entry per channel
        x = c.freeze_axes(x, [1], Reason.FIXED_OPERAND, n)
    for axis in (0, *range(2, len(shape))):
        x = lab.resized(x, axis, shape[axis])
    return x


@rule("Upsample")
@rule("Resize", sizes=3)
def resize(c: Coupler, n: Node, x: Labels, *_: Labels | None) -> Labels:
    """Axes that keep their size pass; explicit sizes are rewritten."""
    shape = n.outputs[0].shape or ()
    changed = [a for a in range(x.rank) if x.shape[a] != shape[a]]
    if n.attr("coordinate_transformation_mode") == "tf_crop_and_resize" and not n.attr("axes"):
        changed = list(range(x.rank))
    x = c.freeze_axes(x, changed, Reason.SPACE, n)
    for axis in changed:
        x = lab.resized(x, axis, shape[axis])
    sizes = n.input(3)
    if x.terms and sizes is not None and sizes.size:
        axes = n.attr("axes") or range(x.rank)
        c.on_prune(
            n, lambda kept: [SetInput(3, np.array([kept.shape(x)[a % x.rank] for a in axes], np.int64))]
        )
    return x


@rule("DepthToSpace", settle=False)
def depth_to_space(c: Coupler, n: Node, x: Labels) -> Labels:
    """n (b b c) h w -> n c (h b) (w b), as the reshape and transpose it is."""
    x = c.freeze_axes(x, [2, 3], Reason.SPACE, n)
    batch, channels, height, width = x.shape
    b = n.attr("blocksize")
    inner = channels // (b * b)
    if n.attr("mode", "DCR") == "DCR":
        split, perm = (batch, b, b, inner, height, width), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = (batch, inner, b, b, height, width), (0, 1, 4, 2, 5, 3)
    y = lab.transpose(lab.reshape(x, split), perm)
    y = c.settle(lab.reshape(y, (batch, inner, height * b, width * b)), n, avoid=[2, 3])
    return c.freeze_axes(y, [2, 3], Reason.SPACE, n)


@rule("SpaceToDepth", settle=False)
def space_to_depth(c: Coupler, n: Node, x: Labels) -> Labels:
    """n c (h b) (w b) -> n (b b c) h w: every channel appears b*b times."""
    x = c.freeze_axes(c.settle(x, n, avoid=[2, 3]), [2, 3], Reason.SPACE, n)
    batch, channels, height, width = x.shape
    b = n.attr("blocksize")
    split = (batch, channels, height // b, b, width // b, b)
    y = lab.transpose(lab.reshape(x, split), (0, 3, 5, 1, 2, 4))
    return lab.reshape(y, (batch, channels * b * b, height // b, width // b))
