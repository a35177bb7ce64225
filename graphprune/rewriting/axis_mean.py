"""Means over other axes -> a product with a constant vector of 1/n."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphprune.rewriting.context import Context, Refused, data
from graphprune.rewriting.global_pool import mean_axes
from graphprune.rewriting.registry import rewrite_rule


@rewrite_rule("axis-mean", replaces=("ReduceMean",))
def axis_mean(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """A mean over channels, features or tokens -> Conv or MatMul with a constant 1/n, axis by axis.

    The last axis (LayerNorm decompositions) and the one before it become a MatMul; axis 1 of an image a 1x1
    convolution to one channel; the depth of a volume an AveragePool. A mean over no axis is an Identity.
    """
    x = data(node)
    rank = len(context.sizes(x))
    axes, keep = mean_axes(node, context, rank)
    if not axes:
        return [context.op("Identity", x)]
    dtype = context.float_type(x)
    sizes = {a: context.size(x, a) for a in axes if a}
    for axis in axes:
        vector = np.full(sizes.get(axis, 1), 1 / sizes.get(axis, 1), dtype)
        if axis and axis == rank - 1:
            x = context.op("MatMul", x, context.constant(vector[:, None], "mean"))
        elif axis and axis == rank - 2:
            x = context.op("MatMul", context.constant(vector[None], "mean"), x)
        elif axis == 1 and rank <= 5:
            kernel = vector.reshape(1, -1, *[1] * (rank - 2))
            x = context.op("Conv", x, context.constant(kernel, "mean"), kernel_shape=[1] * (rank - 2))
        elif axis and rank <= 5:
            window = [sizes[axis] if a == axis else 1 for a in range(2, rank)]
            x = context.op("AveragePool", x, kernel_shape=window, strides=window)
        else:
            raise Refused(
                f"a mean over axis {axis} of a tensor of rank {rank} is neither a pool nor a product"
            )
    return [x if keep else context.squeeze(x, axes)]
