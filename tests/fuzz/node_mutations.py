"""Mutations of nodes and of what they read."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.fuzz.mutations import (
    activations,
    chance,
    fresh_name,
    mutation,
    names,
    opset,
    pick,
    position_after,
    read_instead,
    shapes,
    store,
)

FAMILIES = (
    ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Identity", "Neg", "Exp", "Erf", "Softsign", "Abs"),
    ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu", "Greater", "Equal"),
    ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "Relu"),
    ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
    ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2", "ArgMax"),
    ("Conv", "ConvTranspose", "MatMul", "Gemm"),
    ("Reshape", "Expand", "Tile", "Flatten", "Squeeze", "Unsqueeze"),
    ("Concat", "Sum", "Max", "Mean"),
    ("Slice", "Split", "Gather", "Identity"),
    ("DepthToSpace", "SpaceToDepth"),
    ("BatchNormalization", "InstanceNormalization"),
    ("LSTM", "GRU", "RNN"),
)


@mutation
def drop_node(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A node goes; its readers read what it read, or nothing that exists."""
    nodes = model.graph.node
    if not nodes:
        return False
    at = int(rng.integers(len(nodes)))
    node = nodes[at]
    source = next((i for i in node.input if i), None)
    if source is not None and chance(rng, 0.7):
        for out in node.output:
            read_instead(model, out, source)
            for value in model.graph.output:
                if value.name == out:
                    value.name = source
    del nodes[at]
    return True


@mutation
def duplicate_node(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """The same node twice: later nodes read either; sometimes both write the same names."""
    nodes = model.graph.node
    if not nodes:
        return False
    at = int(rng.integers(len(nodes)))
    copy = onnx.NodeProto()
    copy.CopyFrom(nodes[at])
    if chance(rng, 0.85):
        copy.name = fresh_name(model, "copy")
        for i, out in enumerate(copy.output):
            if out:
                copy.output[i] = f"{out}_copy"
        readers = [n for n in list(nodes)[at + 1 :] if set(n.input) & set(nodes[at].output)]
        for reader in readers:
            if chance(rng, 0.5):
                reader.input[:] = [f"{i}_copy" if i and i in nodes[at].output else i for i in reader.input]
    nodes.insert(at + 1, copy)
    return True


@mutation
def swap_nodes(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Two nodes change places in the file, which need not be sorted then."""
    nodes = model.graph.node
    if len(nodes) < 2:
        return False
    a, b = (int(i) for i in rng.choice(len(nodes), 2, replace=False))
    first, second = onnx.NodeProto(), onnx.NodeProto()
    first.CopyFrom(nodes[a])
    second.CopyFrom(nodes[b])
    nodes[a].CopyFrom(second)
    nodes[b].CopyFrom(first)
    return True


def _some_input(model: onnx.ModelProto, rng: np.random.Generator) -> tuple[int, int] | None:
    """Numbers of a node and of one of its inputs."""
    readers = [i for i, node in enumerate(model.graph.node) if node.input]
    if not readers:
        return None
    at = pick(rng, readers)
    return at, int(rng.integers(len(model.graph.node[at].input)))


@mutation
def rewire_anywhere(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """An input reads any other value; cycles may come of it."""
    found = _some_input(model, rng)
    if found is None:
        return False
    model.graph.node[found[0]].input[found[1]] = pick(rng, names(model))
    return True


@mutation
def rewire_alike(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """An input reads an earlier value of the same type and sizes: the network stays valid."""
    sizes = shapes(model)
    earlier = {n for n in sizes if position_after(model, n) == 0}
    options = []
    for at, node in enumerate(model.graph.node):
        for i, name in enumerate(node.input):
            options += [(at, i, o) for o in earlier if o != name and sizes[o] == sizes.get(name)]
        earlier |= {o for o in node.output if o in sizes}
    if not options:
        return False
    at, i, other = pick(rng, sorted(options))
    model.graph.node[at].input[i] = other
    return True


@mutation
def swap_operands(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    found = [n for n in model.graph.node if len(n.input) > 1]
    if not found:
        return False
    node = pick(rng, found)
    order = rng.permutation(len(node.input))
    node.input[:] = [node.input[i] for i in order]
    return True


@mutation
def blank_input(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """An input is left out: blank, or not there."""
    found = _some_input(model, rng)
    if found is None:
        return False
    node = model.graph.node[found[0]]
    if chance(rng, 0.5):
        node.input[found[1]] = ""
    else:
        del node.input[-1]
    return True


@mutation
def change_operator(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Another operator with as many inputs."""
    found = [(n, f) for n in model.graph.node for f in FAMILIES if n.op_type in f]
    if not found:
        return False
    node, family = pick(rng, found)
    node.op_type = pick(rng, family)
    return True


@mutation
def custom_domain(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A node of a domain that nobody knows."""
    if not model.graph.node:
        return False
    pick(rng, model.graph.node).domain = pick(rng, ["example.com", "com.microsoft", "ai.onnx.ml"])
    return True


# -- valid networks with more in them -----------------------------------------------------------------


def _value(model: onnx.ModelProto, rng: np.random.Generator, rank: int = 0) -> tuple[str, int, tuple] | None:
    """A float value that nodes read, with the place after it and its sizes."""
    sizes = shapes(model)
    names_ = sorted({n for n in activations(model) if n in sizes and sizes[n][0] == 1})
    names_ = [n for n in names_ if len(sizes[n][1]) >= max(rank, 1)]
    if not names_:
        return None
    name = pick(rng, names_)
    return name, position_after(model, name), sizes[name][1]


def _insert(model: onnx.ModelProto, at: int, old: str, made: list[onnx.NodeProto]) -> bool:
    """``made`` after ``old``; what read ``old`` from there on reads the last node's result."""
    read_instead(model, old, made[-1].output[0], at)
    for i, node in enumerate(made):
        model.graph.node.insert(at + i, node)
    return True


@mutation
def insert_identity(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    found = _value(model, rng)
    if found is None:
        return False
    name, at, _ = found
    kind = pick(rng, ["Identity", "Dropout", "Relu", "Tanh"])
    return _insert(model, at, name, [helper.make_node(kind, [name], [fresh_name(model, "same")])])


@mutation
def insert_transposes(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A permutation and its inverse, sometimes with an operator between them."""
    found = _value(model, rng, 2)
    if found is None:
        return False
    name, at, sizes = found
    perm = rng.permutation(len(sizes))
    base = fresh_name(model, "turned")
    made = [helper.make_node("Transpose", [name], [base], perm=perm.tolist())]
    if chance(rng, 0.4):
        made.append(helper.make_node(pick(rng, ["Relu", "Sigmoid"]), [base], [f"{base}_a"]))
    back = np.argsort(perm).tolist()
    made.append(helper.make_node("Transpose", [made[-1].output[0]], [f"{base}_back"], perm=back))
    return _insert(model, at, name, made)


@mutation
def insert_reshapes(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Flattened, and back to the shape that it had."""
    found = _value(model, rng, 2)
    if found is None:
        return False
    name, at, sizes = found
    base = fresh_name(model, "flat")
    literal = pick(rng, [[-1], [0, -1], [0, 0, -1], [1, -1, 2]])[: max(len(sizes), 1)]
    made = [
        helper.make_node("Shape", [name], [f"{base}_shape"]),
        helper.make_node("Reshape", [name, store(model, np.array(literal, np.int64))], [base]),
        helper.make_node("Reshape", [base, f"{base}_shape"], [f"{base}_back"]),
    ]
    return _insert(model, at, name, made)


@mutation
def insert_split(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Cut along an axis and joined again, in the same order or another."""
    found = _value(model, rng, 2)
    if found is None:
        return False
    name, at, sizes = found
    axis = int(rng.integers(1, len(sizes)))
    size = sizes[axis]
    if not isinstance(size, int) or size < 2:
        return False
    cut = int(rng.integers(1, size))
    base = fresh_name(model, "part")
    parts = [f"{base}_a", f"{base}_b"]
    if opset(model) < 13:
        split = helper.make_node("Split", [name], parts, axis=axis, split=[cut, size - cut])
    else:
        lengths = store(model, np.array([cut, size - cut], np.int64))
        split = helper.make_node("Split", [name, lengths], parts, axis=axis)
    order = parts if chance(rng, 0.5) else parts[::-1]
    return _insert(model, at, name, [split, helper.make_node("Concat", order, [base], axis=axis)])


@mutation
def insert_shuffle(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Channels gathered in another order."""
    found = _value(model, rng, 2)
    if found is None:
        return False
    name, at, sizes = found
    axis = int(rng.integers(1, len(sizes)))
    size = sizes[axis]
    if not isinstance(size, int) or not 2 <= size <= 4096:
        return False
    index = store(model, rng.permutation(size) if chance(rng, 0.7) else rng.integers(-size, size, size))
    return _insert(
        model, at, name, [helper.make_node("Gather", [name, index], [fresh_name(model, "mixed")], axis=axis)]
    )


@mutation
def insert_statistic(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A value times the mean of itself along an axis."""
    found = _value(model, rng, 2)
    if found is None:
        return False
    name, at, sizes = found
    base, axis = fresh_name(model, "mean"), int(rng.integers(1, len(sizes)))
    if opset(model) < 18:
        mean = helper.make_node("ReduceMean", [name], [f"{base}_m"], axes=[axis], keepdims=1)
    else:
        axes = store(model, np.array([axis], np.int64))
        mean = helper.make_node("ReduceMean", [name, axes], [f"{base}_m"], keepdims=1)
    kind = pick(rng, ["Add", "Sub", "Mul"])
    return _insert(model, at, name, [mean, helper.make_node(kind, [name, f"{base}_m"], [base])])


@mutation
def insert_residual(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """Two values of the same sizes are added, or something else is done with the two."""
    sizes = shapes(model)
    found = sorted({n for n in activations(model) if n in sizes and sizes[n][0] == 1})
    pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :] if sizes[a] == sizes[b]]
    if not pairs:
        return False
    pair = sorted(pick(rng, pairs), key=lambda n: position_after(model, n))
    kind = pick(rng, ["Add", "Add", "Mul", "Max", "Sub"])
    made = helper.make_node(kind, pair, [fresh_name(model, "joined")])
    return _insert(model, position_after(model, pair[1]), pair[1], [made])


@mutation
def insert_quantisation(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """QuantizeLinear and DequantizeLinear, one step for all or one for every channel."""
    found = _value(model, rng, 2)
    if found is None:
        return False
    name, at, sizes = found
    size, base = sizes[1], fresh_name(model, "quantised")
    each = isinstance(size, int) and size > 0 and opset(model) >= 13 and chance(rng, 0.4)
    scale = np.full(size, 0.05, np.float32) if each else np.array(0.05, np.float32)
    step = [store(model, scale), store(model, np.zeros(scale.shape, np.int8))]
    more = {"axis": 1} if each else {}
    made = [
        helper.make_node("QuantizeLinear", [name, *step], [base], **more),
        helper.make_node("DequantizeLinear", [base, *step], [f"{base}_back"], **more),
    ]
    return _insert(model, at, name, made)


@mutation
def into_function(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A node becomes a call of a local function that holds it."""
    nodes = [n for n in model.graph.node if n.op_type != "Constant" and not n.domain and all(n.input)]
    nodes = [n for n in nodes if len(set(n.input)) == len(n.input)]
    if not nodes:
        return False
    node = pick(rng, nodes)
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    name = fresh_name(model, "Wrapped")
    opsets = [o for o in model.opset_import if o.domain != "fuzz"]
    function = helper.make_function("fuzz", name, list(node.input), list(node.output), [inner], opsets)
    model.functions.append(function)
    if not any(o.domain == "fuzz" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("fuzz", 1))
    model.ir_version = max(model.ir_version, 8)
    node.CopyFrom(helper.make_node(name, node.input, node.output, node.name, domain="fuzz"))
    return True


@mutation
def into_branch(model: onnx.ModelProto, rng: np.random.Generator) -> bool:
    """A node moves into both branches of an If, where it reads the values outside."""
    sizes = shapes(model)
    nodes = [n for n in model.graph.node if n.op_type != "Constant" and len(n.output) == 1]
    nodes = [n for n in nodes if n.output[0] in sizes]
    if not nodes:
        return False
    node = pick(rng, nodes)
    kind, _ = sizes[node.output[0]]
    branches = []
    for side in ("then", "else"):
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.output[0] = f"{node.output[0]}_{side}"
        out = helper.make_tensor_value_info(inner.output[0], kind, None)
        branches.append(helper.make_graph([inner], side, [], [out]))
    condition = store(model, np.array(True))
    whole = helper.make_node(
        "If", [condition], node.output, node.name, then_branch=branches[0], else_branch=branches[1]
    )
    node.CopyFrom(whole)
    return True
