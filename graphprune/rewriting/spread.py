"""A pooled context that meets a whole map is spread over it first, for targets that do not broadcast.

As in BiSeNetV2's form for an NPU: the 1x1 context is enlarged by a Resize before it is added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphprune.rewriting.context import MADE_BY, Context, operand
from graphprune.rewriting.registry import rewrite_rule

_KEEPS_PIXELS = frozenset(
    {
        "Conv", "BatchNormalization", "Add", "Mul", "Sub", "Div", "Relu", "Sigmoid", "HardSigmoid", "HardSwish",
        "LeakyRelu", "PRelu", "Clip", "Tanh", "Identity", "Dropout", "Cast",
    }
)  # fmt: skip


@rewrite_rule(
    "spread-context", replaces=("ReduceMean", "GlobalAveragePool"), visits=("Add", "Mul", "Sub", "Div")
)
def spread_context(node: ir.Node, context: Context) -> Sequence[ir.Value] | None:
    """Broadcasting a pooled 1x1 context over a map -> Resize (nearest), then an operation on equal sizes.

    Only for contexts that come from what ``global-pool`` made, through operators that keep a 1x1 image what it
    is: what the model had before is the target's already.
    """
    inputs = [operand(node, 0), operand(node, 1)]
    if not context.has("Resize") or context.opset < 10 or None in inputs:
        return None
    for index, value in enumerate(inputs):
        factors = _factors(context, value, inputs[1 - index])
        if factors is not None and value is not None:
            inputs[index] = _spread(context, value, factors)
            return [context.op(node.op_type, *inputs)]
    return None


def _factors(context: Context, small: ir.Value | None, large: ir.Value | None) -> list[int] | None:
    """How often a pooled ``[N, C, 1, 1]`` is repeated along each spatial axis to meet ``[N, C, H, W]``."""
    if small is None or large is None:
        return None
    a, b = context.known.sizes(small), context.known.sizes(large)
    if a is None or b is None or len(a) != len(b) or len(a) < 3 or set(a[2:]) != {1} or not _pooled(small):
        return None
    factors = [size for size in b[2:] if size is not None]
    return factors if len(factors) == len(b) - 2 and max(factors) > 1 else None


def _pooled(value: ir.Value) -> bool:
    stack, seen = [value], set()
    while stack:
        node = stack.pop().producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.meta.get(MADE_BY) == "global-pool":
            return True
        if node.op_type in _KEEPS_PIXELS:
            stack.extend(v for v in node.inputs if v is not None)
    return False


def _spread(context: Context, value: ir.Value, factors: list[int]) -> ir.Value:
    """Nearest neighbour from one pixel, written as PyTorch exports it; the Resize of opset 10 has no roi."""
    scales = context.constant(np.array([1, 1, *factors], np.float32), "scales")
    if context.opset < 11:
        return context.op("Resize", value, scales, mode="nearest")
    roi = None if context.opset >= 13 else context.constant(np.zeros(0, np.float32), "roi")
    return context.op(
        "Resize", value, roi, scales,
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
