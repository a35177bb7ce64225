"""Mutations of attributes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, helper

from tests.fuzz.mutations import chance, mutation, near, pick

_WORDS = ("constant", "reflect", "edge", "wrap", "DCR", "CRD", "SAME_UPPER", "VALID", "NOTSET", "linear",
          "nearest", "cubic", "forward", "bidirectional", "none", "add", "half_pixel", "asymmetric", "")  # fmt: skip
_MORE = ("axis", "group", "keepdims", "alpha", "transA", "transB", "auto_pad", "pads", "perm", "axes", "mode")


def _attributes(
    model: onnx.ModelProto, *kinds: AttributeProto.AttributeType
) -> list[tuple[onnx.NodeProto, AttributeProto]]:
    return [(n, a) for n in model.graph.node for a in n.attribute if a.type in kinds]


@mutation
def change_number(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """axis, group, keepdims, hidden_size, ..."""
    found = _attributes(model, AttributeProto.INT)
    if not found:
        return False
    attribute = pick(rng, found)[1]
    attribute.i = near(rng, attribute.i)
    return True


@mutation
def change_numbers(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """perm, pads, strides, axes, split, ...: another number, another order, one more or one less."""
    found = [p for p in _attributes(model, AttributeProto.INTS) if p[1].ints]
    if not found:
        return False
    ints = pick(rng, found)[1].ints
    how = pick(rng, ["number", "number", "order", "more", "less"])
    if how == "number":
        at = int(rng.integers(len(ints)))
        ints[at] = near(rng, ints[at])
    elif how == "order":
        ints[:] = [ints[i] for i in rng.permutation(len(ints))]
    elif how == "more":
        ints.append(pick(rng, list(ints)))
    else:
        del ints[-1]
    return True


@mutation
def change_float(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    found = _attributes(model, AttributeProto.FLOAT)
    if not found:
        return False
    pick(rng, found)[1].f = pick(rng, [0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), 0.5])
    return True


@mutation
def change_word(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    found = _attributes(model, AttributeProto.STRING)
    if not found:
        return False
    attribute = pick(rng, found)[1]
    attribute.s = b"\xff\xfe" if chance(rng, 0.1) else pick(rng, _WORDS).encode()
    return True


@mutation
def drop_attribute(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    found = [n for n in model.graph.node if n.attribute]
    if not found:
        return False
    node = pick(rng, found)
    del node.attribute[int(rng.integers(len(node.attribute)))]
    return True


@mutation
def add_attribute(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """One that other operators have; sometimes a second one of the same name."""
    if not model.graph.node:
        return False
    node = pick(rng, model.graph.node)
    value = pick(rng, [0, 1, 2, -1, [0, 1], [1, 0, 2, 3], 0.5, "edge"])
    node.attribute.append(helper.make_attribute(pick(rng, _MORE), value))
    return True


@mutation
def retype_attribute(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """The same name with a value of another kind."""
    found = [(n, a) for n in model.graph.node for a in n.attribute]
    if not found:
        return False
    attribute = pick(rng, found)[1]
    attribute.CopyFrom(helper.make_attribute(attribute.name, pick(rng, [1, 0.5, [1, 2], [0.5], "x"])))
    return True
