"""Do the weights of a written file have the zeros that its plan promises? Counted, not rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

import numpy as np
import onnx_ir as ir

from graphprune.layouts import BlockLayout, Layout, RowLayout
from graphprune.mapped import array_of
from graphprune.running import computed_constants, top_level_values


def pattern_fault(model: ir.Model, layouts: Mapping[str, Layout]) -> str | None:
    """One sentence on the first weight that breaks its pattern; None where all keep it."""
    tensors = _tensors(model, layouts)
    for name, layout in layouts.items():
        array = array_of(tensors[name]) if name in tensors else None
        if array is None:
            return f"the pruned file does not store {name!r}, which the plan says has zeros"
        if array.shape != layout.shape:
            return f"{name!r} has shape {array.shape} in the pruned file, and the plan leaves {layout.shape}"
        fault = _blocks(array, layout) if isinstance(layout, BlockLayout) else _rows(array, layout)
        if fault is not None:
            return f"{name!r} {fault}"
    return None


def _blocks(array: np.ndarray, layout: BlockLayout) -> str | None:
    """Every block that is not kept, one by one."""
    for place in product(*(range(n) for n in layout.kept.shape)):
        if layout.kept[place]:
            continue
        block = array[tuple(slice(i * b, (i + 1) * b) for i, b in zip(place, layout.block, strict=True))]
        count = int(np.count_nonzero(block))
        if count:
            return f"has {count} non-zero weights in block {place}, which the plan drops"
    return None


def _rows(array: np.ndarray, layout: RowLayout) -> str | None:
    """Non-zeros of every group, position by position along the axis."""
    for start in range(0, layout.shape[layout.axis], layout.of):
        group = array.take(range(start, min(start + layout.of, layout.shape[layout.axis])), layout.axis)
        most = int((group != 0).sum(axis=layout.axis).max(initial=0))
        if most > layout.keep:
            return f"has {most} non-zero weights in {layout.of} from position {start} of axis {layout.axis}"
    return None


def _tensors(model: ir.Model, names: Iterable[str]) -> dict[str, ir.TensorProtocol]:
    """Stored ones, and those that the file's own nodes rebuild (Constant nodes and block tables)."""
    values = top_level_values(model.graph)
    found: dict[str, ir.TensorProtocol] = {}
    computed = []
    for name in names:
        value = values.get(name)
        if value is not None and value.producer() is None and value.const_value is not None:
            found[name] = value.const_value
        elif value is not None:
            computed.append(name)
    return found | {n: ir.Tensor(a) for n, a in computed_constants(model, computed).items()}
