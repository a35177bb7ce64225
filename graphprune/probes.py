"""Where two models are compared: their outputs, and inner values that show more than the outputs do.

* A small error hides behind a large number: the operands of a Concat that an output is made of are
  compared one by one (class scores beside box coordinates).
* A saturating function (Sigmoid, Softmax) returns almost nothing but its own rounding: its input is
  compared, and its output is measured against 1.
* An operator that jumps (TopK, NonMaxSuppression, ArgMax, Round, a comparison) turns rounding into
  another result, which is no error: what it reads is compared.

Where an output behind a jumping or saturating operator differs all the same, both models run again with
that operator's result fed in (a seam), and every piece between the seams is compared.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphprune.graph import Graph, Node, Value
from graphprune.running import top_level_values

_JUMPS = frozenset(
    {
        "TopK", "NonMaxSuppression", "ArgMax", "ArgMin", "Round", "Floor", "Ceil", "Sign", "Hardmax",
        "NonZero", "Unique", "Multinomial", "Bernoulli", "Greater", "Less", "GreaterOrEqual", "LessOrEqual",
        "Equal", "Mod",
    }
)  # fmt: skip
_UNIT_RANGE = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
_STEEP = _UNIT_RANGE | {"LogSoftmax", "Exp"}
_MOVES = frozenset(
    {
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Cast",
        "Slice",
        "Split",
        "Gather",
    }
)


@dataclass(frozen=True)
class Probes:
    """Names of values to compare, and the operators behind which rounding may show.

    outputs: the model's. exposed: inner values compared besides. bounded: those that lie in [0, 1], with
    the logits they come from among the exposed. seams: jumping operators, and saturating ones that outputs
    are made of. behind: everything that depends on a seam.
    """

    outputs: tuple[str, ...]
    exposed: tuple[str, ...]
    bounded: frozenset[str]
    seams: tuple[Node, ...]
    behind: frozenset[str]

    @classmethod
    def choose(cls, graph: Graph, pruned: ir.Model) -> Probes:
        """Look at the original; ``pruned`` only tells which names it still has."""
        varying = _depends(graph, graph.inputs)
        jumps = [n for n in graph.nodes if _jumps(n, varying)]
        behind_jumps = _depends(graph, (out for n in jumps for out in n.outputs))
        first = [
            v for n in jumps for v in float_inputs(n) if v.name in varying and v.name not in behind_jumps
        ]
        ends = [*graph.outputs, *first]
        parts = [p for v in ends for p in _parts(v)]
        steep = list(dict.fromkeys(n for v in ends for n in _saturating(v)))
        logits = [v for n in steep for v in float_inputs(n)]
        known = top_level_values(pruned.graph)
        inner = dict.fromkeys(
            v.name for v in (*first, *parts, *logits) if v.name in varying and v.name in known
        )
        outputs = tuple(v.name for v in graph.outputs)
        bounded = frozenset(v.name for v in (*ends, *parts) if _in_unit_range(v, known))
        seams = tuple(dict.fromkeys((*jumps, *steep)))
        behind = _depends(graph, (out for n in seams for out in n.outputs))
        return cls(outputs, tuple(n for n in inner if n not in outputs), bounded, seams, frozenset(behind))

    def common_seams(self, original: Graph, pruned: Graph) -> list[Node]:
        """Those that are the same in both models and read values of the same shape."""
        found = []
        for node in self.seams:
            names = [v.name for v in (*node.inputs, *node.outputs) if v is not None and v.name]
            same = all(
                n in pruned.values and pruned.values[n].shape == original.values[n].shape for n in names
            )
            twin = pruned.values[node.outputs[0].name].producer if same else None
            if (
                twin is not None
                and (twin.op, twin.attrs) == (node.op, node.attrs)
                and _same_limits(node, twin)
            ):
                found.append(node)
        return found


def float_inputs(node: Node) -> Iterator[Value]:
    """Inputs in which rounding can show."""
    for value in node.inputs:
        if value is not None and value.dtype.startswith(("float", "bfloat")) and not value.constant:
            yield value


def _same_limits(node: Node, twin: Node) -> bool:
    """Whether constant inputs (k, thresholds) agree: a fed result would hide that they do not."""
    pairs = zip(node.inputs, twin.inputs, strict=False)
    return all(
        a.known is not None and b.known is not None and np.array_equal(a.known, b.known)
        for a, b in pairs
        if a is not None and b is not None and a.stored
    )


def _depends(graph: Graph, sources: Iterable[Value]) -> set[str]:
    """Names of values that change with the *data* of ``sources``; sizes are not data."""
    found = {v.name for v in sources}
    for node in graph.nodes:
        if node.op in ("Shape", "Size"):
            continue
        if any(v is not None and v.name in found for v in (*node.inputs, *node.captured)):
            found.update(v.name for v in node.outputs if v.known is None)
    return found


def _jumps(node: Node, varying: set[str]) -> bool:
    if node.op == "Cast":
        to = node.outputs[0].dtype
        jumping = to != "" and not to.startswith(("float", "bfloat"))
    elif node.op == "MaxPool":
        jumping = len(node.outputs) > 1
    else:
        jumping = node.op in _JUMPS
    return jumping and any(v.name in varying for v in float_inputs(node))


def _walk(value: Value) -> Iterator[Value]:
    """``value`` and, backwards, the values that it is put together from without arithmetic."""
    seen: set[str] = set()
    stack = [value]
    while stack:
        value = stack.pop()
        if value.name in seen:
            continue
        seen.add(value.name)
        yield value
        node = value.producer
        if node is not None and (node.op in _MOVES or node.op in ("Concat", "Mul", "ReduceMax")):
            count = len(node.inputs) if node.op in ("Concat", "Mul") else 1
            stack.extend(v for v in node.inputs[:count] if v is not None)


def _parts(value: Value) -> Iterator[Value]:
    for found in _walk(value):
        if found.producer is not None and found.producer.op == "Concat":
            yield from (v for v in found.producer.inputs if v is not None)


def _saturating(value: Value) -> Iterator[Node]:
    for found in _walk(value):
        if found.producer is not None and found.producer.op in _STEEP:
            yield found.producer


def _in_unit_range(value: Value, known: Container[str]) -> bool:
    """Made of sigmoids and softmaxes only, whose inputs are compared as well."""
    for found in _walk(value):
        node = found.producer
        if node is None or found.constant:
            return False
        if node.op in _UNIT_RANGE:
            if not all(v.name in known for v in float_inputs(node)):
                return False
        elif node.op not in _MOVES and node.op not in ("Concat", "Mul", "ReduceMax"):
            return False
    return True
