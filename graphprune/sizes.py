"""Shape constants of a pruned model: Reshape targets, Split sizes, Expand shapes and the like.

Sizes that a graph computes from its tensors follow by themselves. The model is walked once with sizes
propagated; where a size does not come out as the surviving labels say, it is mended on the spot.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphprune.adding import add_initializer, free_name, names_of, stored_value
from graphprune.coupling import Coupling
from graphprune.edits import Edit, Kept, SetInput
from graphprune.errors import FidelityError
from graphprune.frontends.onnx import Register, build_graph
from graphprune.graph import Graph, Node, Value

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)


@dataclass
class Surgery:
    """The pruned model, and what a plan must say about names."""

    model: ir.Model
    renamed: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """``name``, or with a number where a tensor or node of the model has it already."""
        if not self._taken:
            self._taken.update(names_of(self.model))
        return free_name(name, self._taken)

    _taken: set[str] = field(default_factory=set, repr=False)


def node_key(node: Node | ir.Node) -> str:
    """The same string for a node in every copy of a model: its first output that has a name."""
    return next((o.name for o in node.outputs if o.name), "")


def literal(done: Surgery, name: str, array: np.ndarray, purpose: str) -> ir.Value:
    """A new initializer with a name of its own."""
    unique = done.unique(name)
    value = stored_value(unique, array)
    add_initializer(done.model, value)
    done.added[unique] = purpose
    return value


def rewrite_sizes(done: Surgery, coupling: Coupling, kept: Kept, edits: dict[str, list[Edit]]) -> Graph:
    """Walk the pruned model with sizes propagated, mending each shape constant where it is met."""
    original = coupling.graph
    shapes = {v.name: v.shape for v in original.inputs if v.shape is not None}
    patcher = _Patcher(done, original, edits)
    expected = {
        value.name: (kept.shape(x), value.dtype)
        for value, x in coupling.labels.items()
        if x is not None and not value.constant
    }
    return build_graph(done.model, shapes, visit=patcher.visit, measure=False, expected=expected)


class _Patcher:
    def __init__(self, done: Surgery, original: Graph, edits: dict[str, list[Edit]]) -> None:
        self.done = done
        self.original = original
        self.edits = edits
        self.static = not original.open_axes
        self.mended: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def visit(self, node: Node, source: ir.Node, register: Register) -> None:
        key = node_key(node)
        wanted = {e.index: e for e in self.edits.get(key, ()) if isinstance(e, SetInput)}
        for edit in wanted.values():
            self._set_input(node, source, register, edit)
        if node.op in ("Shape", "Size", "Constant") or (_foldable(node) and not _becomes_data(node)):
            return
        for index, value in enumerate(node.inputs):
            if value is not None and index not in wanted:
                self._keep_data(node, source, register, index, value)

    def _set_input(self, node: Node, source: ir.Node, register: Register, edit: SetInput) -> None:
        value = node.input(edit.index)
        if value is None:
            new = literal(
                self.done, f"{node.name}_sizes", edit.array, f"sizes of {node.name!r} after pruning"
            )
            _put_input(source, edit.index, new)
            return
        if value.known is None:
            raise FidelityError(
                f"a size of node {node.name!r} ({value.name!r}) is not known: please report this"
            )
        now = value.known.reshape(-1)
        want = edit.array.reshape(-1).astype(now.dtype)
        if edit.keep_symbols:
            want = np.where(now <= 0, now, want)
        if now.size == want.size and np.array_equal(now, want):
            return
        shaped = want.reshape(edit.array.shape if now.size != want.size else value.known.shape)
        self._replace(node, source, register, edit.index, value, shaped, "a size")

    def _keep_data(self, node: Node, source: ir.Node, register: Register, index: int, value: Value) -> None:
        """A number computed from sizes and used as data keeps its original value (e.g. 1/sqrt(width))."""
        before = self.original.values.get(value.name)
        if value.known is None or value.producer is None or before is None or before.known is None:
            return
        if value.stored or before.known.shape != value.known.shape:
            return
        if np.array_equal(before.known, value.known):
            return
        self._replace(node, source, register, index, value, before.known, "a number")

    def _replace(
        self,
        node: Node,
        source: ir.Node,
        register: Register,
        index: int,
        value: Value,
        want: np.ndarray,
        what: str,
    ) -> None:
        old = source.inputs[index]
        assert old is not None
        key = (value.name, want.shape, want.tobytes())
        if key in self.mended:  # another node asked for the same numbers
            _put_input(source, index, self.mended[key])
            return
        purpose = f"{what} of node {node.name!r} after pruning"
        if (
            (value.constant and (value.producer is None or value.producer.op == "Constant"))
            or self.static
            or value.known is None
            or value.known.shape != want.shape
        ):
            new = literal(self.done, f"{value.name}_pruned", want, purpose)
        else:
            new = self._joined(source, register, old, value, want, purpose) or self._scaled(
                source, register, old, value.known, want, purpose
            )
        self.mended[key] = new
        _put_input(source, index, new)

    def _joined(
        self,
        source: ir.Node,
        register: Register,
        old: ir.Value,
        value: Value,
        want: np.ndarray,
        purpose: str,
    ) -> ir.Value | None:
        """A target joined from run-time and literal sizes: only the literals change. None where it is not."""
        node, joiner = value.producer, old.producer()
        if node is None or joiner is None or node.op != "Concat" or want.ndim != 1:
            return None
        pieces: list[ir.Value | None] = list(joiner.inputs)
        start = 0
        for i, piece in enumerate(node.inputs):
            if piece is None or piece.known is None:
                return None
            part = want[start : start + piece.size]
            start += piece.size
            if np.array_equal(part, piece.known):
                continue
            if not _is_literal(piece):
                return None
            pieces[i] = literal(self.done, f"{piece.name}_pruned", part.astype(piece.known.dtype), purpose)
        name = self.done.unique(f"{value.name}_pruned")
        joined = ir.Node(
            "", "Concat", pieces, [ir.AttrInt64("axis", 0)], name=self.done.unique(f"{name}_concat")
        )
        joined.outputs[0].name = name
        source.prepend(joined)
        self.done.added[joined.name or ""] = purpose
        register(joined.outputs[0], want)
        return joined.outputs[0]

    def _scaled(
        self,
        source: ir.Node,
        register: Register,
        old: ir.Value,
        now: np.ndarray,
        want: np.ndarray,
        purpose: str,
    ) -> ir.Value:
        """Correct the entries that pruning changed and leave run-time sizes to the run.

        An entry may be the product of a pruned and a dynamic size, so it is multiplied by wanted / now
        rather than replaced.
        """
        name = self.done.unique(f"{old.name}_pruned")
        same = now == want
        factor = literal(self.done, f"{name}_times", np.where(same, 1, want).astype(now.dtype), purpose)
        divisor = literal(self.done, f"{name}_over", np.where(same, 1, now).astype(now.dtype), purpose)
        product = ir.Node("", "Mul", [old, factor], name=self.done.unique(f"{name}_mul"))
        quotient = ir.Node("", "Div", [product.outputs[0], divisor], name=self.done.unique(f"{name}_div"))
        product.outputs[0].name, quotient.outputs[0].name = self.done.unique(f"{name}_product"), name
        for node in (product, quotient):
            source.prepend(node)
            self.done.added[node.name or ""] = purpose
        register(product.outputs[0], np.where(same, now, now * want))
        register(quotient.outputs[0], want)
        return quotient.outputs[0]


def _is_literal(value: Value) -> bool:
    """Whether a known value is the same for every input shape."""
    node = value.producer
    if node is None or node.op == "Constant":
        return value.constant
    return node.op not in ("Shape", "Size") and all(v is None or _is_literal(v) for v in node.inputs)


def _foldable(node: Node) -> bool:
    return bool(node.inputs) and all(v is None or v.known is not None for v in node.inputs)


def _becomes_data(node: Node) -> bool:
    """Whether a size turns into a float here: mended as the integer that it is, whatever is computed of it later."""
    return node.op == "Cast" and node.attr("to") in _FLOATS


def _put_input(node: ir.Node, index: int, value: ir.Value) -> None:
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
