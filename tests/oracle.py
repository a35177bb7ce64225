"""The masked reference, rebuilt from an original model, a pruned model and the plan's JSON alone.

Written against the plan's documentation with numpy and onnx only: it shares no code with the package,
so that a misreading on one side shows as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

TOLERANCE = 1e-4


class NotComparable(AssertionError):
    """The original's results tell nothing: not finite, or mostly rounding."""


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """onnxruntime with optimisations off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def stored(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers and the tensors of Constant nodes, by value name."""
    found = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found[node.output[0]] = attribute.t
    return found


def masked(original: onnx.ModelProto, pruned: onnx.ModelProto, plan: Mapping[str, Any]) -> onnx.ModelProto:
    """The original with removed consumer entries zeroed, gates, and kept-only operators."""
    model = onnx.ModelProto()
    model.CopyFrom(original)
    before, after = stored(original), stored(pruned)
    new_name = {old: new for new, old in plan["renamed"].items()}
    for name, removed in plan["removed"].items():
        full = numpy_helper.to_array(before[name]) if name in before else _computed(original, name)
        source = after.get(new_name.get(name, name))
        full = full.copy()
        if source is not None:
            full[kept_mask(full.shape, removed)] = numpy_helper.to_array(source).reshape(-1)
        for axis in plan["contracted"].get(name, ()):
            full[~kept_mask(full.shape, {str(axis): removed[str(axis)]})] = 0
        _store(model, name, full)
    for name, axes in plan["gates"].items():
        _gate(model, name, axes)
    for name, axes in plan["kept_only"].items():
        _keep_only(model, name, {int(a): indices for a, indices in axes.items()})
    return model


def _by_rows(indices: list) -> bool:
    return bool(indices) and isinstance(indices[0], list)


def kept_mask(shape: tuple[int, ...], removed: Mapping[str, list]) -> np.ndarray:
    """bool of ``shape``: True where an entry survives every axis. Lists of lists hold per block of axis 0."""
    mask = np.ones(shape, bool)
    for key, indices in removed.items():
        axis = int(key)
        blocks = np.split(mask, len(indices)) if _by_rows(indices) else [mask]
        per_block = indices if _by_rows(indices) else [indices]
        for part, gone in zip(blocks, per_block, strict=True):
            np.moveaxis(part, axis, 0)[gone] = False
    return mask


def _computed(model: onnx.ModelProto, name: str) -> np.ndarray:
    """A constant that operators compute: cut out of the model and run."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.add().name = name
    needed, nodes = {name}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    del copy.graph.node[:]
    copy.graph.node.extend(reversed(nodes))
    used = {i for node in nodes for i in node.input}
    kept = [i for i in model.graph.input if i.name in used]  # their shapes alone matter
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    return session(copy).run(None, inputs(copy, 0))[0]


def _store(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    graph = model.graph
    for i, tensor in enumerate(graph.initializer):
        if tensor.name == name:
            graph.initializer[i].CopyFrom(numpy_helper.from_array(array, name))
            return
    for node in graph.node:  # a computed constant: what computes it gives up the name
        node.output[:] = [f"{o}_unused" if o == name else o for o in node.output]
    graph.initializer.append(numpy_helper.from_array(array, name))


def _constant(model: onnx.ModelProto, array: np.ndarray) -> str:
    name = f"oracle_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _gate(model: onnx.ModelProto, name: str, axes: Mapping[str, list[int]]) -> None:
    """Everything that reads ``name`` reads it times a mask."""
    shape = _shape(model, name)
    value = name
    position = next((i for i, n in enumerate(model.graph.node) if name in n.output), -1) + 1
    consumers = [n for n in model.graph.node if name in n.input]
    for axis, gone in axes.items():
        mask = np.ones(shape[int(axis)], np.float32)
        mask[gone] = 0
        mask = mask.reshape([-1 if a == int(axis) else 1 for a in range(len(shape))])
        out = f"{value}_gate{axis}"
        model.graph.node.insert(position, helper.make_node("Mul", [value, _constant(model, mask)], [out]))
        position, value = position + 1, out
    for node in consumers:
        node.input[:] = [value if i == name else i for i in node.input]


def _shape(model: onnx.ModelProto, name: str) -> tuple[int, ...]:
    """The shape that ``name`` has when the model runs."""
    stored_here = {t.name: tuple(t.dims) for t in model.graph.initializer}
    if name in stored_here:
        return stored_here[name]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if name not in {o.name for o in copy.graph.output}:
        copy.graph.output.add().name = name
    return session(copy).run([name], inputs(copy, 0))[0].shape


def _keep_only(model: onnx.ModelProto, name: str, axes: Mapping[int, list[int]]) -> None:
    """Gather what is kept -> the operator -> back in place, zeros elsewhere."""
    index = next(i for i, n in enumerate(model.graph.node) if n.name == name)
    node = model.graph.node[index]
    shape = _shape(model, node.input[0])
    same_shape = not node.op_type.startswith("Reduce")
    every = node.op_type.endswith(("LayerNormalization", "RMSNormalization"))
    count = len(node.input) if every else 1
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    for axis, gone in axes.items():
        kept = np.setdiff1d(np.arange(shape[axis]), gone)
        chosen = _constant(model, kept)
        for i in range(count):
            at = axis if i == 0 else axis - len(shape)  # scale and bias have the last axes
            fresh = f"{name}_input{i}_kept{axis}"
            before.append(helper.make_node("Gather", [node.input[i], chosen], [fresh], axis=at))
            node.input[i] = fresh
        if same_shape:
            out = node.output[0]
            node.output[0] = f"{out}_kept{axis}"
            place = np.zeros(shape[axis], np.int64)  # 0 is the padded position
            place[kept] = np.arange(kept.size) + 1
            pads = [0] * (2 * len(shape))
            pads[axis] = 1
            padded = [node.output[0], _constant(model, np.array(pads, np.int64))]
            after.append(helper.make_node("Pad", padded, [f"{out}_padded{axis}"]))
            placed = [f"{out}_padded{axis}", _constant(model, place)]
            after.append(helper.make_node("Gather", placed, [out], axis=axis))
    for new in reversed(after):
        model.graph.node.insert(index + 1, new)
    for new in reversed(before):
        model.graph.node.insert(index, new)


def inputs(model: onnx.ModelProto, seed: int, batch: int = 2) -> dict[str, np.ndarray]:
    """Random values for every input (integers are 0 or 1); dynamic axes get ``batch``."""
    rng = np.random.default_rng(seed)
    names = {t.name for t in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in names:
            tensor = value.type.tensor_type
            shape = [d.dim_value or batch for d in tensor.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type or 1)
            drawn = rng.integers(0, 2, shape) if dtype.kind in "iub" else rng.standard_normal(shape)
            feeds[value.name] = drawn.astype(dtype)
    return feeds


def difference(reference: onnx.ModelProto, pruned: onnx.ModelProto, batch: int = 2) -> float:
    """Largest max|a - b| / max|b| over outputs and two random inputs.

    Inputs on which the reference itself amplifies rounding (the floats beside its entries move it by more
    than a tenth of the tolerance) tell nothing and are passed over; two of twelve must be left.
    """
    first, second = session(reference), session(pruned)
    found: list[float] = []
    for seed in range(12):
        feed = inputs(reference, seed, batch)
        wanted = first.run(None, feed)
        noise = max(_apart(first.run(None, _nudged(feed, n)), wanted) for n in range(6))
        if noise <= TOLERANCE / 10:
            found.append(_apart(second.run(None, feed), wanted))
        if len(found) == 2:
            return max(found)
    raise NotComparable("the network amplifies rounding on nearly every input")


def _nudged(feed: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Every float moved to one of those beside it."""
    rng = np.random.default_rng(seed)
    return {name: np.nextafter(x, _ends(rng, x)) if x.dtype.kind == "f" else x for name, x in feed.items()}


def _ends(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return rng.choice(np.array([-np.inf, np.inf], x.dtype), x.shape)


def _apart(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape, (a.shape, b.shape)
        if not np.isfinite(b).all():
            raise NotComparable("an output is not finite")
        # onnxruntime's piecewise exp and erf jump by 1e-7 or so: outputs that are tiny by cancellation show it
        scale = max(np.abs(b).max(initial=0), 1e-2)
        worst = max(worst, float(np.abs(a - b).max(initial=0) / scale))
    return worst
