"""Means over the image -> one average pool per axis, as in BiSeNetV2's form for an NPU without ReduceMean.

A pool over the rows and then one over the columns compute the mean over both, since all windows are of equal
size. Small one-dimensional windows also fit pooling units whose window is limited.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphprune.rewriting.context import Context, Refused, attribute, data, operand, operator
from graphprune.rewriting.registry import rewrite_rule


def mean_axes(node: ir.Node, context: Context, rank: int) -> tuple[list[int], bool]:
    """Axes of a mean, ascending and from 0, and whether they stay with size 1.

    ReduceMean's are an attribute before opset 18 and an input from there on; without any, all are meant
    unless ``noop_with_empty_axes``. GlobalAveragePool's are all from the third on. Raises Refused.
    """
    if operator(node) == "GlobalAveragePool":
        return list(range(2, rank)), True
    keep = bool(attribute(node, "keepdims", 1))
    axes = attribute(node, "axes")
    given = operand(node, 1)
    if given is not None:
        array = context.array(given)
        if array is None:
            raise Refused("its axes are computed at run time")
        axes = np.atleast_1d(array).tolist()
    if not axes:
        axes = [] if attribute(node, "noop_with_empty_axes", 0) else range(rank)
    return sorted({a % rank for a in axes}), keep


@rewrite_rule("global-pool", replaces=("ReduceMean", "GlobalAveragePool"))
def global_pool(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """A mean over the image -> AveragePool along every spatial axis in turn.

    For ``[N, C, H, W]`` (or 1 or 3 spatial axes) and a mean over at least two of them, or GlobalAveragePool.
    """
    x = data(node)
    rank = len(context.sizes(x))
    axes, keep = mean_axes(node, context, rank)
    pooled = operator(node) == "GlobalAveragePool" or len(axes) >= 2
    if not (pooled and 3 <= rank <= 5 and min(axes) >= 2):
        return None
    context.float_type(x)
    sizes = {a: context.size(x, a) for a in axes}
    for axis in [a for a in axes if sizes[a] > 1] or axes[-1:]:
        window = [sizes[a] if a == axis else 1 for a in range(2, rank)]
        x = context.op("AveragePool", x, kernel_shape=window, strides=window)
    return [x if keep else context.squeeze(x, axes)]
