"""LSTM, GRU and RNN layers: torch's gates reordered by operators, so that the stored weights stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphprune.frontends.torch.conversion import Conversion
from graphprune.frontends.torch.registry import operator

# torch: LSTM i f g o, GRU r z n; ONNX: LSTM i o f c, GRU z r h
_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


@operator("lstm")
def lstm(
    c: Conversion, x: ir.Value, hx: list[ir.Value], params: list[ir.Value], has_biases: bool, num_layers: int,
    bidirectional: bool, batch_first: bool, **_: object,
) -> list[ir.Value]:  # fmt: skip
    """One layer, in one direction or both."""
    return _layer(c, "LSTM", x, hx, params, has_biases, num_layers, bidirectional, batch_first)


@operator("gru")
def gru(
    c: Conversion, x: ir.Value, hx: ir.Value, params: list[ir.Value], has_biases: bool, num_layers: int,
    bidirectional: bool, batch_first: bool, **_: object,
) -> list[ir.Value]:  # fmt: skip
    """One layer, in one direction or both."""
    return _layer(
        c, "GRU", x, [hx], params, has_biases, num_layers, bidirectional, batch_first, linear_before_reset=1
    )


@operator("rnn_tanh", "rnn_relu")
def rnn(
    c: Conversion, x: ir.Value, hx: ir.Value, params: list[ir.Value], has_biases: bool, num_layers: int,
    bidirectional: bool, batch_first: bool, **_: object,
) -> list[ir.Value]:  # fmt: skip
    """One layer, in one direction or both."""
    name = "Tanh" if "tanh" in str(c.current.target) else "Relu"
    return _layer(
        c, "RNN", x, [hx], params, has_biases, num_layers, bidirectional, batch_first, activations=[name]
    )


def _layer(
    c: Conversion, op: str, x: ir.Value, states: Sequence[ir.Value], params: Sequence[ir.Value], has_biases: bool,
    layers: int, bidirectional: bool, batch_first: bool, **attributes: object,
) -> list[ir.Value]:  # fmt: skip
    directions = ["forward", "reverse"] if bidirectional else ["forward"]
    per, count = (4 if has_biases else 2), len(directions)
    if layers != 1 or len(params) != count * per or c.rank(x) != 3:
        raise c.refuse("it has projections, or no batch axis")
    hidden = c.shape(params[1])[1]
    steps = c.emit("Transpose", x, perm=[1, 0, 2]) if batch_first else x
    parts = [_split(c, s, count) for s in states]
    found = []
    for index, direction in enumerate(directions):
        weights = _weights(c, op, params[index * per : (index + 1) * per], hidden)
        found.append(
            c.emit_many(
                op, [steps, *weights, None, *(p[index] for p in parts)], 1 + len(states), hidden_size=hidden,
                direction=direction, **attributes,
            )
        )  # fmt: skip
    axes = c.ints([1], "direction")
    each = [c.emit("Squeeze", outputs[0], axes) for outputs in found]
    merged = each[0] if count == 1 else c.emit("Concat", *each, axis=2)
    if batch_first:
        merged = c.emit("Transpose", merged, perm=[1, 0, 2])
    finals = [[outputs[1 + i] for outputs in found] for i in range(len(states))]
    return [merged, *(f[0] if count == 1 else c.emit("Concat", *f, axis=0) for f in finals)]


def _split(c: Conversion, state: ir.Value, count: int) -> list[ir.Value]:
    """The initial state of every direction."""
    if count == 1:
        return [state]
    return c.emit_many("Split", [state, c.ints([1] * count, "directions")], count, axis=0)


def _weights(c: Conversion, op: str, params: Sequence[ir.Value], hidden: int) -> list[ir.Value | None]:
    """W, R and B of one direction, with ONNX's first axis of directions."""
    axes = c.ints([0], "axes")
    w, r, *biases = (_reordered(c, op, p, hidden) for p in params)
    found: list[ir.Value | None] = [c.emit("Unsqueeze", w, axes), c.emit("Unsqueeze", r, axes)]
    if not biases:
        return [*found, None]
    return [*found, c.emit("Unsqueeze", c.emit("Concat", *biases, axis=0), axes)]


def _reordered(c: Conversion, op: str, weight: ir.Value, hidden: int) -> ir.Value:
    """Gates in ONNX's order."""
    order = _ORDER[op]
    if len(order) == 1:
        return weight
    gates = c.emit_many("Split", [weight, c.ints([hidden] * len(order), "gates")], len(order), axis=0)
    return c.emit("Concat", *(gates[i] for i in order), axis=0)
