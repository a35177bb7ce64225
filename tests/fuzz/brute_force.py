"""Cut an operator's input by hand, run what is left, and see what goes with it: no rule is asked.

The operators are the rows of tests.test_rules without the contractions around them: the *body*, which computes ``c``
from ``a``. A removal is real where the body, run on an input that lacks some channels, gives exactly what the whole
body gave, less some positions. What an operator sums over must have been zero before, because that is what masked
means; so the whole body may also have been run with zeros in the place of what goes.

Weights are cut and integers (sizes, counts, indices, attributes) changed as the caller says, or in every way that is
tried by ``removable``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests import oracle

Arrays = dict[str, np.ndarray]
Change = Callable[[onnx.ModelProto], None]

TOLERANCE = 1e-5
MOST_TRIES = 400
MOST_INTEGERS = 6


def body_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what computes ``a`` and what computes ``y``; it takes any sizes."""
    nodes = [n for n in model.graph.node if n.output[0] not in ("a", "y")]
    read = {i for n in nodes for i in n.input} | {"a", "c"}
    inner = {i for n in nodes for attr in n.attribute for sub in attr.g.node for i in sub.input}
    rank = 4 if len(model.graph.input[0].type.tensor_type.shape.dim) == 4 else 3
    inputs = [n for n in ("a", "x") if n in read | inner]
    graph = helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * rank) for n in inputs],
        [helper.make_empty_tensor_value_info("c")],
        [t for t in model.graph.initializer if t.name in read | inner],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def run(body: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """``c``, or None where onnxruntime refuses the body or what it is fed."""
    names = {i.name for i in body.graph.input}
    try:
        found = oracle.session(body).run(None, {n: a for n, a in feeds.items() if n in names})[0]
    except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
        return None
    return np.asarray(found, np.float64)


def draws(body: onnx.ModelProto, image: bool) -> list[Arrays]:
    """Inputs on which every entry of ``c`` is finite, and as many of them differ as can."""
    shape, first = ((1, 4, 4, 4), (1, 3, 4, 4)) if image else ((1, 4, 4), (1, 4, 3))
    for low, high in ((-2.0, 2.0), (0.05, 0.95), (1.05, 1.95)):
        found = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            feeds = {n: rng.uniform(low, high, s).astype(np.float32) for n, s in (("a", shape), ("x", first))}
            c = run(body, feeds)
            if c is None or not np.isfinite(c).all():
                break
            found.append(feeds)
        if len(found) == 3:
            return found
    return []


def same(found: np.ndarray | None, wanted: np.ndarray) -> bool:
    return (
        found is not None
        and found.shape == wanted.shape
        and bool(np.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE))
    )


# -- integers -----------------------------------------------------------------------------------------


def integer_places(body: onnx.ModelProto) -> list[tuple[int, Change]]:
    """Every small positive integer of the body, and how to lower it by one."""
    found: list[tuple[int, Change]] = []
    for i, node in enumerate(body.graph.node):
        for j, attribute in enumerate(node.attribute):
            if attribute.type == AttributeProto.INT and 1 < attribute.i <= 16 and attribute.name != "to":
                found.append((attribute.i, _lower_attribute(i, j)))
    for k, tensor in enumerate(body.graph.initializer):
        if tensor.data_type == TensorProto.INT64 and np.prod(tensor.dims) <= 8:
            for at, value in enumerate(numpy_helper.to_array(tensor).reshape(-1).tolist()):
                if 1 <= value <= 16:
                    found.append((value, _lower_entry(k, at)))
    return found


def _lower_attribute(node: int, attribute: int) -> Change:
    def change(body: onnx.ModelProto) -> None:
        body.graph.node[node].attribute[attribute].i -= 1

    return change


def _lower_entry(tensor: int, at: int) -> Change:
    def change(body: onnx.ModelProto) -> None:
        stored = body.graph.initializer[tensor]
        array = np.array(numpy_helper.to_array(stored))
        array.reshape(-1)[at] -= 1
        stored.CopyFrom(numpy_helper.from_array(array, stored.name))

    return change


def with_integers(body: onnx.ModelProto, each: int) -> Iterator[onnx.ModelProto]:
    """The body as it is, and with any set of its integers lowered by ``each``."""
    places = [change for _, change in integer_places(body)][:MOST_INTEGERS]
    for chosen in sorted(product((False, True), repeat=len(places)), key=sum):
        copy = onnx.ModelProto()
        copy.CopyFrom(body)
        for change, wanted in zip(places, chosen, strict=True):
            for _ in range(each if wanted else 0):
                change(copy)
        yield copy


# -- weights ------------------------------------------------------------------------------------------


def cut_weights(body: onnx.ModelProto, gone: Mapping[str, Mapping[int, Sequence[int]]]) -> onnx.ModelProto:
    """Without the positions ``gone`` (tensor name -> axis -> indices)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(body)
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        for axis, indices in gone.get(tensor.name, {}).items():
            array = np.delete(array, indices, axis=axis)
        tensor.CopyFrom(numpy_helper.from_array(np.array(array, order="C"), tensor.name))
    return copy


def weight_cuts(body: onnx.ModelProto, index: int, size: int) -> Iterator[dict[str, dict[int, list[int]]]]:
    """Every way to take channel ``index`` of ``size`` out of the stored tensors: from none, or along an axis."""
    options: list[list[tuple[str, int, list[int]] | None]] = []
    for tensor in body.graph.initializer:
        if tensor.data_type in (TensorProto.INT64, TensorProto.BOOL):
            continue
        ways: list[tuple[str, int, list[int]] | None] = [None]
        for axis, length in enumerate(tensor.dims):
            if length > 1 and length % size == 0:
                times = length // size
                block = list(range(index * times, (index + 1) * times))
                strided = list(range(index, length, size))
                ways += [(tensor.name, axis, way) for way in ([block] if times == 1 else [block, strided])]
        options.append(ways)
    for chosen in product(*options):
        yield {name: {axis: indices} for name, axis, indices in (c for c in chosen if c is not None)}


# -- what may go --------------------------------------------------------------------------------------


def removable(body: onnx.ModelProto, feeds: Sequence[Arrays], axis: int, index: int) -> bool:
    """Whether channel ``index`` of ``a`` can go alone, in any of the ways that are tried."""
    size = feeds[0]["a"].shape[axis]
    whole = [run(body, f) for f in feeds]
    zeroed = [run(body, f | {"a": _zeroed(f["a"], axis, [index])}) for f in feeds]
    tries = (
        variant
        for gone in weight_cuts(body, index, size)
        for variant in with_integers(cut_weights(body, gone), 1)
    )
    for variant in islice(tries, MOST_TRIES):
        for i, f in enumerate(feeds):
            found = run(variant, f | {"a": np.delete(f["a"], index, axis=axis)})
            full, masked = whole[i], zeroed[i]
            if found is None or full is None or masked is None:
                break
            if not same(found, masked) and not _part_of(found, full):
                break
        else:
            return True
    return False


def _zeroed(array: np.ndarray, axis: int, indices: Sequence[int]) -> np.ndarray:
    out = array.copy()
    np.moveaxis(out, axis, 0)[list(indices)] = 0
    return out


def _part_of(found: np.ndarray, whole: np.ndarray) -> bool:
    """Whether ``found`` is ``whole`` less some, and not all, positions of one axis, in the same order."""
    if found.ndim != whole.ndim or found.size == 0:
        return False
    shrunk = [a for a in range(whole.ndim) if found.shape[a] != whole.shape[a]]
    if len(shrunk) != 1:
        return False
    left, right = np.moveaxis(found, shrunk[0], 0), np.moveaxis(whole, shrunk[0], 0)
    position = 0
    for part in left:
        while position < len(right) and not same(part, right[position]):
            position += 1
        position += 1
    return position <= len(right)
