"""Block tables that the graph itself spreads out: Gather -> Transpose -> Reshape (-> Slice).

The operators only move data, so the weight is the same bit for bit; onnxruntime and OpenVINO fold them
away when they load the file (https://onnx.ai/onnx/operators/onnx__Gather.html).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphprune.adding import add_initializer, free_name, names_of, stored_value
from graphprune.formats.registry import MOVABLE, file_format, stored_tensor
from graphprune.packed import Packed, PackedBlocks, side_by_side
from graphprune.running import top_level_values

NODE_BYTES = 400
"""What the operators and small tensors of one weight take in the file, without its name."""

NAMES = 14
"""How often a weight's name is part of them."""

FIRST_OVERRIDABLE = 4
"""From this IR version on, an initializer that is a graph input too may be replaced by whoever runs the model."""


@file_format("compact")
def store(model: ir.Model, weights: Mapping[str, Packed], notes: list[str]) -> None:
    """A table of the kept blocks, spread out by Gather, Transpose and Reshape; exact, about half at 50 %.

    Weights that would not become smaller stay dense, as do N:M patterns, types that the operators do not
    move, and initializers that whoever runs the model may replace.
    """
    values = top_level_values(model.graph)
    writer = _Writer(model)
    rebuilt = 0
    kept_inputs = []
    for name, packed in weights.items():
        if not isinstance(packed, PackedBlocks) or not _is_smaller(packed):
            continue
        value = values[name]
        if value.is_graph_input() and model.ir_version >= FIRST_OVERRIDABLE:
            kept_inputs.append(name)
        elif writer.can_move(value):
            writer.rebuild(value, packed)
            rebuilt += 1
    writer.insert()
    if kept_inputs:
        notes.append(
            f"{len(kept_inputs)} weights are graph inputs too (the first is {kept_inputs[0]!r}) and stay dense: "
            "whoever runs the model may replace them"
        )
    if rebuilt < len(weights):
        notes.append(
            f"{rebuilt} of {len(weights)} patterned weights are stored as block tables; the others stay dense, "
            "because a table would not be smaller or cannot be used there"
        )


def _is_smaller(packed: PackedBlocks) -> bool:
    item = packed.dtype.itemsize
    table = (packed.data.size + int(np.prod(packed.block))) * item + packed.bitmap.size * 4
    overhead = NODE_BYTES + NAMES * len(packed.name.encode())
    return table + overhead < int(np.prod(packed.shape)) * item


class _Writer:
    """Block tables and the nodes that spread them out, collected for ``insert``."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph = model, model.graph
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
        self.nodes: list[ir.Node] = []
        self.taken = names_of(model)

    def can_move(self, value: ir.Value) -> bool:
        """Gather, Transpose, Reshape and Slice take bfloat16 from opset 13 on."""
        dtype = stored_tensor(value).dtype
        return self.opset >= (13 if dtype == ir.DataType.BFLOAT16 else 7) and dtype in MOVABLE

    def rebuild(self, value: ir.Value, packed: PackedBlocks) -> None:
        """Make the nodes that compute ``value``; the last output takes its name."""
        name, dtype = packed.name, stored_tensor(value).dtype
        grid, block = packed.bitmap.shape, packed.block
        table = np.concatenate([packed.data, np.zeros((1, *block), packed.dtype)])
        numbers = np.full(grid, len(packed.data), np.int32)  # the last block of the table is zero
        numbers[packed.bitmap] = np.arange(len(packed.data), dtype=np.int32)
        order = side_by_side(len(packed.shape))
        padded = [g * b for g, b in zip(grid, block, strict=True)]

        self._release(value)
        spread = self._node(
            "Gather",
            [self._stored(f"{name}/table", table, dtype), self._stored(f"{name}/numbers", numbers)],
            ir.AttrInt64("axis", 0),
            value=(f"{name}/blocks", [*grid, *block], dtype),
        )
        turned = self._node(
            "Transpose",
            [spread],
            ir.AttrInt64s("perm", order),
            value=(f"{name}/turned", [[*grid, *block][axis] for axis in order], dtype),
        )
        shape = self._stored(f"{name}/shape", np.array(padded, np.int64))
        whole = self._node("Reshape", [turned, shape], value=(f"{name}/padded", padded, dtype))
        if padded != list(packed.shape):
            whole = self._slice(whole, packed, dtype)
        whole.name = name
        value.replace_all_uses_with(whole, replace_graph_outputs=True)
        producer = value.producer()
        if producer is not None:
            self.graph.remove(producer, safe=True)

    def insert(self) -> None:
        """Put the new nodes before all others: whoever reads a weight, also in a sub-graph, comes later."""
        first = next(iter(self.graph), None)
        if first is None:
            self.graph.extend(self.nodes)
        else:
            self.graph.insert_before(first, self.nodes)

    def _slice(self, whole: ir.Value, packed: PackedBlocks, dtype: ir.DataType) -> ir.Value:
        made = (f"{packed.name}/cut", packed.shape, dtype)
        starts = [0] * len(packed.shape)
        if self.opset < 10:
            return self._node(
                "Slice",
                [whole],
                ir.AttrInt64s("starts", starts),
                ir.AttrInt64s("ends", list(packed.shape)),
                value=made,
            )
        ends = np.array(packed.shape, np.int64)
        inputs = [
            whole,
            self._stored(f"{packed.name}/starts", np.array(starts, np.int64)),
            self._stored(f"{packed.name}/ends", ends),
        ]
        return self._node("Slice", inputs, value=made)

    def _release(self, value: ir.Value) -> None:
        """Free the name of an initializer or of a Constant node's output."""
        if value.producer() is not None:
            value.name = free_name(f"{value.name}/dense", self.taken)
            return
        assert value.name is not None
        if value.is_graph_input():
            self.graph.inputs.remove(value)
        del self.graph.initializers[value.name]

    def _node(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        *attributes: ir.Attr,
        value: tuple[str, Sequence[int], ir.DataType],
    ) -> ir.Value:
        name, shape, dtype = value
        name = free_name(name, self.taken)
        node = ir.Node("", op, inputs, attributes, name=name)
        out = node.outputs[0]
        out.name, out.shape, out.type = name, ir.Shape(shape), ir.TensorType(dtype)
        self.nodes.append(node)
        return out

    def _stored(self, name: str, array: np.ndarray, dtype: ir.DataType | None = None) -> ir.Value:
        value = stored_value(free_name(name, self.taken), array, dtype)
        add_initializer(self.model, value)
        return value
