"""Constant folding of small tensors: shape arithmetic and scalar constants.

The common operators are one-liners in numpy because a big graph holds hundreds of them; the rest go
to ``onnx.reference``, the ONNX project's own evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from graphprune.graph import Node, Value

MAX_FOLDED_ELEMENTS = 4096
"""Larger constants are weights, not shape arithmetic; they are never computed while analysing."""

_CHEAP = frozenset(
    {
        *(
            "Identity",
            "Cast",
            "Unsqueeze",
            "Squeeze",
            "Slice",
            "Sqrt",
            "Floor",
            "Ceil",
            "Neg",
            "Transpose",
            "Reshape",
        ),
        *("Flatten", "Gather", "Add", "Sub", "Mul", "Div", "Equal", "NonZero", "Compress", "Unique"),
    }
)
"""Operators whose result is no larger than their inputs, or at most as large as two of them multiplied."""

_NOT_FOLDED = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "Dropout",
        "If",
        "Loop",
        "Scan",
        "SequenceEmpty",
    }
)


def _slice(node: Node, a: list[np.ndarray]) -> np.ndarray:
    data = a[0]
    if len(a) == 1:
        starts, ends = node.attr("starts"), node.attr("ends")
        axes, steps = node.attr("axes") or range(len(starts)), [1] * len(starts)
    else:
        starts, ends = a[1].tolist(), a[2].tolist()
        axes = a[3].tolist() if len(a) > 3 and a[3] is not None else range(len(starts))
        steps = a[4].tolist() if len(a) > 4 and a[4] is not None else [1] * len(starts)
    index: list[slice] = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = data.shape[axis]
        # ONNX clamps; Python's slice does the same but for "before the first" with a negative step
        stop = None if step < 0 and end < -size else end
        index[axis] = slice(start, stop, step)
    return data[tuple(index)]


def _axes(node: Node, a: list[np.ndarray], position: int = 1) -> tuple[int, ...] | None:
    axes = node.attr("axes")
    if axes is None and len(a) > position and a[position] is not None:
        axes = np.atleast_1d(a[position]).tolist()
    return None if axes is None else tuple(axes)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if np.issubdtype(a.dtype, np.integer):
        truncated: np.ndarray = (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
        return truncated
    quotient: np.ndarray = a / b
    return quotient


def _unsqueeze(node: Node, a: list[np.ndarray]) -> np.ndarray:
    axes = _axes(node, a) or ()
    return np.expand_dims(a[0], tuple(axes))


def _cast(node: Node, a: list[np.ndarray]) -> np.ndarray:
    return a[0].astype(onnx.helper.tensor_dtype_to_np_dtype(node.attr("to")))


def _constant_of_shape(node: Node, a: list[np.ndarray]) -> np.ndarray:
    value = node.attr("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return np.full(tuple(a[0].tolist()), fill.reshape(-1)[0], dtype=fill.dtype)


_FOLD: dict[str, Callable[[Node, list[Any]], np.ndarray]] = {
    "Identity": lambda n, a: a[0],
    "Cast": _cast,
    "Gather": lambda n, a: np.take(a[0], a[1], axis=n.attr("axis", 0)),
    "Concat": lambda n, a: np.concatenate(a, axis=n.attr("axis", 0)),
    "Unsqueeze": _unsqueeze,
    "Squeeze": lambda n, a: np.squeeze(a[0], _axes(n, a)),
    "Slice": _slice,
    "Add": lambda n, a: a[0] + a[1],
    "Sub": lambda n, a: a[0] - a[1],
    "Mul": lambda n, a: a[0] * a[1],
    "Div": lambda n, a: _divide(a[0], a[1]),
    "Sqrt": lambda n, a: np.sqrt(a[0]),
    "Floor": lambda n, a: np.floor(a[0]),
    "Ceil": lambda n, a: np.ceil(a[0]),
    "Neg": lambda n, a: -a[0],
    "Equal": lambda n, a: np.equal(a[0], a[1]),
    "Where": lambda n, a: np.where(a[0], a[1], a[2]),
    "Transpose": lambda n, a: np.transpose(a[0], n.attr("perm")),
    "Range": lambda n, a: np.arange(a[0].item(), a[1].item(), a[2].item(), dtype=a[0].dtype),
    "ConstantOfShape": _constant_of_shape,
}


def _reference(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    names = [f"i{i}" if a is not None else "" for i, a in enumerate(arrays)]
    attrs = {
        k: onnx.numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v
        for k, v in node.attrs.items()
        if v is not None
    }
    proto = onnx.helper.make_node(node.op, names, [f"o{i}" for i in range(len(node.outputs))], **attrs)
    model = onnx.helper.make_graph(
        [proto],
        "fold",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, arrays, strict=True)
            if a is not None
        ],
        [onnx.helper.make_empty_tensor_value_info(o) for o in proto.output],
    )
    whole = onnx.helper.make_model(model, opset_imports=[onnx.helper.make_opsetid("", node.opset)])
    feeds = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
    try:
        return list(ReferenceEvaluator(whole).run(None, feeds))
    except RuntimeError:  # onnx.reference holds only the newest versions of some operators
        import onnxruntime as ort

        whole.ir_version = 8  # of the oldest onnxruntime that we support
        session = ort.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
        return list(session.run(None, feeds))


def evaluate(node: Node, output: int) -> np.ndarray:
    """Compute a constant of any size from the stored tensors it is made of.

    Raises ValueError where the operator cannot be evaluated.
    """
    arrays = [None if v is None else constant_array(v) for v in node.inputs]
    try:
        rule = _FOLD.get(node.op)
        outputs = [rule(node, arrays)] if rule is not None else _reference(node, arrays)
    except Exception as error:  # onnx.reference raises many types
        raise ValueError(f"cannot compute the constant {node.outputs[output].name!r}: {error}") from error
    return np.asarray(outputs[output])


def constant_array(value: Value) -> np.ndarray:
    """The data of any constant value, computed where it is not stored. Raises ValueError."""
    if value.known is not None or value.load is not None:
        return value.array()
    if value.producer is None:
        raise ValueError(f"{value.name!r} is not constant")
    return evaluate(value.producer, value.producer.outputs.index(value))


def may_be_large(node: Node) -> bool:
    """Whether a few small inputs can make a result of any size, so that its shape must be known before it is folded."""
    return node.op not in _CHEAP


def fold(node: Node, arrays: Sequence[np.ndarray | None]) -> list[np.ndarray] | None:
    """Outputs of ``node`` for constant ``arrays``, or None where it cannot or should not be folded."""
    if "::" in node.op or node.op in _NOT_FOLDED or node.captured:
        return None
    try:
        rule = _FOLD.get(node.op)
        if rule is not None:
            outputs = [np.asarray(rule(node, list(arrays)))]
        else:
            outputs = [np.asarray(o) for o in _reference(node, arrays)]
    except Exception:  # noqa: BLE001 - a constant that cannot be computed is simply not known
        return None
    if any(o.size > MAX_FOLDED_ELEMENTS for o in outputs):
        return None
    return outputs
