"""A decision -> the smaller ONNX model: sliced tensors, rewritten attributes and shape constants.

Everything that does not change stays bit-identical: names, dynamic axes, metadata, doc strings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphprune.adding import add_initializer
from graphprune.coupling import Coupling
from graphprune.edits import Edit, Kept, ReplaceBySelection, SetAttr
from graphprune.errors import FidelityError
from graphprune.graph import Graph, Value
from graphprune.mapped import replacing
from graphprune.records import Slice
from graphprune.running import top_level_values
from graphprune.sizes import Surgery, literal, node_key, rewrite_sizes


def apply(model: ir.Model, coupling: Coupling, alive: np.ndarray) -> Surgery:
    """Remove every coupled channel that is not ``alive`` (bool ``[components]``) from a copy of ``model``.

    Raises FidelityError where the result's shapes contradict the labels, which would be a bug.
    """
    kept = coupling.kept(alive)
    done = Surgery(model.clone())
    nodes = {node_key(n): n for n in done.model.graph}
    values = top_level_values(done.model.graph)
    _slice_tensors(done, coupling, kept, values)
    edits = _edits(coupling, kept)
    _apply_selections(done, edits, nodes, values)
    for key, found in edits.items():
        for edit in found:
            if isinstance(edit, SetAttr):
                _set_attribute(nodes[key], edit)
    _update_shapes(coupling, kept, values)
    remove_dead(model, done)
    pruned = rewrite_sizes(done, coupling, kept, edits)
    remove_dead(model, done)
    _check_shapes(coupling, kept, pruned)
    return done


# -- tensors --------------------------------------------------------------------------------------


def changed_slices(coupling: Coupling, kept: Kept) -> dict[Value, list[Slice]]:
    """Stored tensors that lose anything, with the slices along which they do."""
    found: dict[Value, list[Slice]] = {}
    for s in coupling.coupler.slices:
        if kept.changed(s.ids):
            found.setdefault(s.tensor, []).append(s)
    return found


def sliced(array: np.ndarray, slices: Sequence[Slice], kept: Kept) -> np.ndarray:
    """The part of a tensor that stays."""
    by_rows = [s for s in slices if s.rows > 1]
    plain = [s for s in slices if s.rows == 1]
    if by_rows:
        rows = by_rows[0].rows
        first = next((s.ids for s in plain if s.axis == 0), None)
        keep_rows = np.ones(array.shape[0], bool) if first is None else kept.mask(first)
        plain = [s for s in plain if s.axis != 0]
        parts = []
        for g, (block, mask) in enumerate(zip(np.split(array, rows), np.split(keep_rows, rows), strict=True)):
            part = block[mask]
            for s in by_rows:
                part = np.take(part, kept.indices(s.ids[g]), axis=s.axis)
            parts.append(part)
        array = np.concatenate(parts)
    for s in plain:
        array = np.take(array, kept.indices(s.ids), axis=s.axis)
    return np.ascontiguousarray(array)


def _slice_tensors(done: Surgery, coupling: Coupling, kept: Kept, values: dict[str, ir.Value]) -> None:
    for tensor, slices in changed_slices(coupling, kept).items():
        by_rows = any(s.rows > 1 for s in slices)
        if tensor.producer is not None and tensor.producer.op == "ConstantOfShape" and not by_rows:
            continue  # its shape is rewritten instead
        value = values[tensor.name]
        array = sliced(np.asarray(tensor.array()), slices, kept)
        old = value.const_value
        new = ir.Tensor(array, name=tensor.name) if old is None else replacing(old, array, name=tensor.name)
        node = value.producer()
        if node is None:
            value.const_value = new
            value.shape = ir.Shape(array.shape)  # initializers always record theirs
        elif node.op_type == "Constant":
            node.attributes["value"] = ir.AttrTensor("value", new)
            for name in [a for a in node.attributes if a.startswith("value_")]:
                del node.attributes[name]
            if value.shape is not None:
                value.shape = ir.Shape(array.shape)
        else:
            values[tensor.name] = _store_computed(done, value, new)
            done.added[tensor.name] = f"the constant that node {node.name!r} computed, pruned"


def _store_computed(done: Surgery, value: ir.Value, tensor: ir.Tensor) -> ir.Value:
    """Put an initializer in the place of a constant that operators computed."""
    name = value.name
    value.name = f"{name}_computed"
    stored = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=value.type, const_value=tensor)
    if stored.type is None:
        stored.type = ir.TensorType(tensor.dtype)
    value.replace_all_uses_with(stored)
    add_initializer(done.model, stored)
    return stored


# -- nodes ----------------------------------------------------------------------------------------


def _edits(coupling: Coupling, kept: Kept) -> dict[str, list[Edit]]:
    """Edits by the node's key (see node_key)."""
    found: dict[str, list[Edit]] = {}
    for node, rewrite in coupling.coupler.rewrites:
        edits = list(rewrite(kept))
        if edits:
            found.setdefault(node_key(node), []).extend(edits)
    return found


def _set_attribute(node: ir.Node, edit: SetAttr) -> None:
    if edit.value is None:
        node.attributes.pop(edit.name, None)
    elif isinstance(edit.value, list):
        node.attributes[edit.name] = ir.AttrInt64s(edit.name, edit.value)
    else:
        node.attributes[edit.name] = ir.AttrInt64(edit.name, int(edit.value))


def _apply_selections(
    done: Surgery, edits: dict[str, list[Edit]], nodes: dict[str, ir.Node], values: dict[str, ir.Value]
) -> None:
    """Movement chains become one Gather each, under the old output's name."""
    for key, found in edits.items():
        for edit in found:
            if not isinstance(edit, ReplaceBySelection):
                continue
            node = nodes[key]
            old = node.outputs[edit.output]
            name = old.name or ""
            index = literal(done, f"{name}_indices", edit.indices, f"positions that {name!r} selects")
            gather = ir.Node(
                "",
                "Gather",
                [values[edit.source], index],
                [ir.AttrInt64("axis", edit.axis)],
                name=done.unique(f"{node.name or name}_select"),
            )
            new = gather.outputs[0]
            new.type, new.shape = old.type, old.shape
            old.name = done.unique(f"{name}_unused")
            new.name = name
            node.append(gather)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            values[name] = new
            done.added[gather.name or ""] = f"selects what the movement chain ending in {node.name!r} did"
        edits[key] = [e for e in found if not isinstance(e, ReplaceBySelection)]


def _update_shapes(coupling: Coupling, kept: Kept, values: dict[str, ir.Value]) -> None:
    """Recorded shapes (value_info) follow the surviving counts; dynamic axes stay dynamic."""
    for value, labels in coupling.labels.items():
        target = values.get(value.name)
        if labels is None or not labels.terms or target is None or target.shape is None:
            continue
        if len(target.shape) != labels.rank or _sliced_by_rows(coupling, value):
            continue
        new = kept.shape(labels)
        dims = [new[a] if isinstance(d, int) and labels.on(a) else d for a, d in enumerate(target.shape)]
        target.shape = ir.Shape(dims)


# -- tidying --------------------------------------------------------------------------------------


def remove_dead(before: ir.Model, done: Surgery) -> None:
    """Remove what only surgery left without a reader; what was unused before stays."""
    unused_before = {node_key(n) for n in before.graph if not _is_read(n)}
    graph = done.model.graph
    for node in reversed(list(graph)):
        if node.outputs and not _is_read(node) and node_key(node) not in unused_before:
            graph.remove(node, safe=True)
    read_before = {name for name, v in before.graph.initializers.items() if v.uses() or v.is_graph_output()}
    inputs = {id(v) for v in graph.inputs}
    for name, value in list(graph.initializers.items()):
        is_read = value.uses() or value.is_graph_output()
        if not is_read and (name in read_before or name in done.added):
            if id(value) in inputs:
                graph.inputs.remove(value)
            del graph.initializers[name]
            done.added.pop(name, None)


def _is_read(node: ir.Node) -> bool:
    return any(o.uses() or o.is_graph_output() for o in node.outputs)


def _sliced_by_rows(coupling: Coupling, value: Value) -> bool:
    """Whether a constant loses other indices in each block: its labels do not tell its shape."""
    return value.constant and coupling.coupler.storage(value) in coupling.coupler.sliced_by_rows


def _check_shapes(coupling: Coupling, kept: Kept, pruned: Graph) -> None:
    for value, labels in coupling.labels.items():
        found = pruned.values.get(value.name)
        if labels is None or not labels.terms or found is None or found.shape is None:
            continue
        if (not found.consumers and not found.is_output) or _sliced_by_rows(coupling, value):
            continue
        expected = kept.shape(labels)
        if found.shape != expected:
            where = value.producer.name if value.producer is not None else value.name
            raise FidelityError(
                f"after surgery {value.name!r} (node {where!r}) has shape {list(found.shape)}, expected "
                f"{list(expected)}: this is a bug in graphprune, please report the model"
            )
