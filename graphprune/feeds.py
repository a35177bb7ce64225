"""Random inputs for a model: what they may be, in which sizes, and the numbers themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.graph import Graph, Node, Value
from graphprune.open_sizes import other_batch, other_sizes

STYLES = ("normal", "unit", "byte", "ones")
"""How float inputs are drawn: N(0, 1), U[0, 1], U[0, 255], all ones (the last resort)."""

_PASSES_INDICES = frozenset(
    {
        "Cast",
        "Identity",
        "Reshape",
        "Unsqueeze",
        "Squeeze",
        "Flatten",
        "Transpose",
        "Expand",
        "Slice",
        "Concat",
    }
)


@dataclass(frozen=True)
class InputSpec:
    """What to draw for one model input. Integers lie in ``[0, bound)``."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bound: int


def input_specs(
    model: ir.Model, graph: Graph, input_shapes: Mapping[str, Sequence[int]]
) -> list[list[InputSpec]]:
    """Sizes to try, best first: batch 2 where axis 0 is dynamic and nobody gave a size, then as analysed.

    Two samples in a batch show a model in which they leak into each other.

    Raises ModelError for inputs that cannot be drawn at random.
    """
    plain = [_spec(value, input_shapes) for value in graph.inputs]
    batch: set[str] = set()
    doubled = []
    sources = {v.name: v for v in model.graph.inputs}
    for spec in plain:
        dims = sources[spec.name].shape
        if dims is None or spec.name in input_shapes or not spec.shape:
            continue
        symbol = getattr(dims[0], "value", None)
        if not isinstance(dims[0], int) and symbol:
            batch.add(symbol)
    for spec in plain:
        shape = list(spec.shape)
        dims = sources[spec.name].shape
        if dims is not None and spec.name not in input_shapes:
            for axis, dim in enumerate(dims):
                dynamic = not isinstance(dim, int) or dim <= 0
                if dynamic and (axis == 0 or getattr(dim, "value", None) in batch):
                    shape[axis] = 2
        doubled.append(InputSpec(spec.name, tuple(shape), spec.dtype, spec.bound))
    return [plain] if doubled == plain else [doubled, plain]


def specs_at_other_sizes(graph: Graph) -> tuple[list[list[InputSpec]], list[InputSpec]]:
    """Sizes at which a model with open axes must work as well, best first, and the analysed ones.

    First every open axis changes, then the batch alone. Empty where no axis is open. Raises ModelError for inputs
    that cannot be drawn at random.
    """
    plain = [_spec(value, {}) for value in graph.inputs]
    changed = []
    for shapes in (other_sizes(graph), other_batch(graph)):
        specs = [replace(spec, shape=shapes[spec.name]) for spec in plain]
        if specs != plain and specs not in changed:
            changed.append(specs)
    return changed, plain


def _spec(value: Value, input_shapes: Mapping[str, Sequence[int]]) -> InputSpec:
    shape = value.shape
    if shape is None:
        if value.name not in input_shapes:
            raise ModelError(f"the size of input {value.name!r} is not known: give it with --input-shape")
        shape = tuple(input_shapes[value.name])
    kind = _kind(value.dtype)
    if kind not in "fiub":
        raise ModelError(
            f"input {value.name!r} holds {value.dtype or 'no tensor'}: only numbers can be drawn at random"
        )
    bounds = [b for consumer in value.consumers for b in _index_bounds(value, consumer)]
    if bounds:
        bound = min(bounds)
    elif value.dtype in ("uint8", "int8") or len(shape) >= 4:
        bound = 128 if value.dtype == "int8" else 256  # an image
    else:
        bound = 2  # a mask or a flag
    return InputSpec(value.name, shape, value.dtype, max(bound, 1))


def _kind(dtype: str) -> str:
    if dtype == "bfloat16":
        return "f"
    try:
        return np.dtype(dtype).kind if dtype else "?"
    except TypeError:
        return "?"


def _index_bounds(value: Value, node: Node, depth: int = 0) -> Iterator[int]:
    """Sizes of the tables that ``value`` indexes, directly or after being moved about."""
    inputs = [None if v is None else v.name for v in node.inputs]
    positions = [i for i, name in enumerate(inputs) if name == value.name]
    if node.op in ("Gather", "GatherElements") and 1 in positions:
        table = node.input(0)
        if table is not None and table.shape:
            yield table.shape[node.attr("axis", 0)]
    elif node.op in ("GatherND", "ScatterND", "ScatterElements") and 1 in positions:
        table = node.input(0)
        if table is not None and table.shape:
            yield min(table.shape)
    elif node.op == "com.microsoft::EmbedLayerNormalization":
        for position, table_position in ((0, 2), (1, 4), (7, 3)):
            table = node.input(table_position)
            if position in positions and table is not None and table.shape:
                yield table.shape[0]
    elif node.op in _PASSES_INDICES and 0 in positions and depth < 8:
        for consumer in node.outputs[0].consumers:
            yield from _index_bounds(node.outputs[0], consumer, depth + 1)


def draw(specs: Sequence[InputSpec], style: str, seed: Sequence[int]) -> dict[str, np.ndarray]:
    """Random inputs in one of STYLES; the same seed gives the same numbers."""
    rng = np.random.default_rng([*seed, STYLES.index(style)])
    return {spec.name: _draw_one(spec, style, rng) for spec in specs}


def _draw_one(spec: InputSpec, style: str, rng: np.random.Generator) -> np.ndarray:
    kind = _kind(spec.dtype)
    dtype = np.dtype(np.float32 if spec.dtype == "bfloat16" else spec.dtype)
    if style == "ones":
        return np.ones(spec.shape, dtype) if kind != "i" or spec.bound > 1 else np.zeros(spec.shape, dtype)
    if kind == "b":
        return rng.integers(0, 2, spec.shape).astype(dtype)
    if kind in "iu":
        return rng.integers(0, spec.bound, spec.shape).astype(dtype)
    if style == "normal":
        return rng.standard_normal(spec.shape, np.float32).astype(dtype)
    return (rng.random(spec.shape, np.float32) * (255 if style == "byte" else 1)).astype(dtype)
