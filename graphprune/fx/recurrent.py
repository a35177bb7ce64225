"""LSTM, GRU and RNN: torch's own kernels where they compute the same, one step after the other elsewhere.

Weights are stored per direction with their gates stacked; torch wants the gates in another order, so they
are reordered by operations through which gradients pass.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.fx.unrolled import CellBuilder, Direction, gru_cell, lstm_cell, rnn_cell, unroll
from graphprune.graph import Node

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass(frozen=True)
class _Layer:
    """One node's tensors, time axis first, and what its attributes say."""

    x: fx.Node  # (time, batch, features)
    weights: Sequence[fx.Node | None]  # W, R, B, P: (directions, ...)
    states: list[fx.Node]  # each (directions, batch, hidden)
    reverse: tuple[bool, ...]
    activations: list[str]
    steps: int
    transposed: bool

    def of(self, c: Conversion, index: int, direction: int) -> fx.Node | None:
        """One weight of one direction."""
        whole = self.weights[index]
        return None if whole is None else c.emit(torch.select, whole, 0, direction)


@converter("LSTM", literals=(4,))
def lstm(
    c: Conversion,
    n: Node,
    x: fx.Node,
    w: fx.Node,
    r: fx.Node,
    b: fx.Node | None = None,
    _lengths: None = None,
    hidden: fx.Node | None = None,
    cell: fx.Node | None = None,
    peepholes: fx.Node | None = None,
) -> list[fx.Node]:
    """torch.lstm; unrolled with peepholes, clipping or other activations."""
    if n.attr("input_forget", 0):
        raise c.refuse(n, "coupled input and forget gates (input_forget=1) are not supported")
    layer = _layer(c, n, x, (w, r, b, peepholes), (hidden, cell), ["Sigmoid", "Tanh", "Tanh"])
    usual = set(layer.activations[0::3]) == {"Sigmoid"} and set(layer.activations) == {"Sigmoid", "Tanh"}
    usual = usual and "Sigmoid" not in layer.activations[1::3] + layer.activations[2::3]
    if usual and peepholes is None and not n.attr("clip"):
        return _kernel(c, layer, torch.lstm, (0, 2, 3, 1))
    return _unrolled(c, n, layer, lstm_cell)


@converter("GRU", literals=(4,))
def gru(
    c: Conversion,
    n: Node,
    x: fx.Node,
    w: fx.Node,
    r: fx.Node,
    b: fx.Node | None = None,
    _lengths: None = None,
    hidden: fx.Node | None = None,
) -> list[fx.Node]:
    """torch.gru where ``linear_before_reset`` is set; unrolled otherwise."""
    layer = _layer(c, n, x, (w, r, b, None), (hidden,), ["Sigmoid", "Tanh"])
    usual = set(layer.activations[0::2]) == {"Sigmoid"} and set(layer.activations[1::2]) == {"Tanh"}
    if usual and n.attr("linear_before_reset", 0) and not n.attr("clip"):
        return _kernel(c, layer, torch.gru, (1, 0, 2))
    return _unrolled(c, n, layer, gru_cell)


@converter("RNN", literals=(4,))
def rnn(
    c: Conversion,
    n: Node,
    x: fx.Node,
    w: fx.Node,
    r: fx.Node,
    b: fx.Node | None = None,
    _lengths: None = None,
    hidden: fx.Node | None = None,
) -> list[fx.Node]:
    """torch.rnn_tanh or rnn_relu; unrolled with other activations."""
    layer = _layer(c, n, x, (w, r, b, None), (hidden,), ["Tanh"])
    kernels = {frozenset({"Tanh"}): torch.rnn_tanh, frozenset({"Relu"}): torch.rnn_relu}
    kernel = kernels.get(frozenset(layer.activations))
    if kernel is not None and not n.attr("clip"):
        return _kernel(c, layer, kernel, (0,))
    return _unrolled(c, n, layer, rnn_cell)


def _layer(
    c: Conversion,
    n: Node,
    x: fx.Node,
    weights: Sequence[fx.Node | None],
    states: Sequence[fx.Node | None],
    defaults: list[str],
) -> _Layer:
    """Bring every tensor into the time-first layout; absent initial states are zeros."""
    transposed = bool(n.attr("layout", 0))
    if transposed:
        x = c.emit(torch.transpose, x, 0, 1)
    reverse = _DIRECTIONS[str(n.attr("direction", "forward")).lower()]
    steps = c.shape(n)[1 if transposed else 0]
    _full_length(c, n, steps)
    hidden = c.shape(n, 2)[2]
    batch = c.method("size", x, 1)
    given = [
        c.method("new_zeros", x, (len(reverse), batch, hidden))
        if state is None
        else _state(c, n, 5 + i, state, batch, transposed)
        for i, state in enumerate(states)
    ]
    activations = [str(a).capitalize() for a in n.attr("activations") or defaults * len(reverse)]
    return _Layer(x, weights, given, reverse, activations, steps, transposed)


def _full_length(c: Conversion, n: Node, steps: int) -> None:
    lengths = n.input(4)
    if lengths is not None and (lengths.known is None or bool((lengths.known != steps).any())):
        raise c.refuse(n, "its sequences have lengths of their own; export it for one fixed length")


def _state(c: Conversion, n: Node, index: int, state: fx.Node, batch: fx.Node, transposed: bool) -> fx.Node:
    """A given initial state, (directions, batch, hidden); one for a batch of one serves every sample."""
    alone = c.shape(n, index)[0 if transposed else 1] == 1
    if transposed:
        state = c.emit(torch.transpose, state, 0, 1)
    return c.method("expand", state, -1, batch, -1) if alone else state


def _kernel(
    c: Conversion, layer: _Layer, function: Callable[..., object], order: tuple[int, ...]
) -> list[fx.Node]:
    """Call torch's kernel. ``order``: position in ONNX of each of torch's gates.

    A layer that only runs backwards is run forwards over the flipped sequence.
    """
    backwards = layer.reverse == (True,)
    x = c.emit(torch.flip, layer.x, [0]) if backwards else layer.x
    count, biased = len(layer.reverse), layer.weights[2] is not None
    parameters = [p for d in range(count) for p in _parameters(c, layer, d, order)]
    initial = layer.states if function is torch.lstm else layer.states[0]
    result = c.emit(function, x, initial, parameters, biased, 1, 0.0, False, count == 2, False)
    y, *last = (c.emit(operator.getitem, result, i) for i in range(1 + len(layer.states)))
    if backwards:
        y = c.emit(torch.flip, y, [0])
    y = c.emit(torch.transpose, c.emit(torch.unflatten, y, -1, (count, -1)), 1, 2)
    return _outputs(c, layer, y, last)


def _parameters(c: Conversion, layer: _Layer, direction: int, order: tuple[int, ...]) -> list[fx.Node]:
    """Weights of one direction as torch takes them: input, state, then their two biases."""
    weights = [layer.of(c, i, direction) for i in (0, 1)]
    bias = layer.of(c, 2, direction)
    if bias is not None:
        halves = c.emit(torch.chunk, bias, 2)
        weights += [c.emit(operator.getitem, halves, i) for i in (0, 1)]
    return [_reordered(c, w, order) for w in weights if w is not None]


def _reordered(c: Conversion, weight: fx.Node, order: tuple[int, ...]) -> fx.Node:
    if len(order) == 1:
        return weight
    gates = c.emit(torch.chunk, weight, len(order))
    return c.emit(torch.cat, [c.emit(operator.getitem, gates, i) for i in order])


def _unrolled(c: Conversion, n: Node, layer: _Layer, cell: CellBuilder) -> list[fx.Node]:
    per = len(layer.activations) // len(layer.reverse)
    runs = []
    for d, reverse in enumerate(layer.reverse):
        weights = [layer.of(c, i, d) for i in range(4)]
        names = layer.activations[d * per : (d + 1) * per]
        direction = Direction(c, n, weights, names, reverse=reverse)
        states = [c.emit(torch.select, s, 0, d) for s in layer.states]
        runs.append(unroll(direction, layer.x, states, layer.steps, cell))
    y = c.emit(torch.stack, [outputs for outputs, _ in runs], 1)
    last = [c.emit(torch.stack, list(ends)) for ends in zip(*(ends for _, ends in runs), strict=True)]
    return _outputs(c, layer, y, last)


def _outputs(c: Conversion, layer: _Layer, y: fx.Node, last: list[fx.Node]) -> list[fx.Node]:
    """Y of (time, directions, batch, hidden) and the last states, in the node's layout."""
    if not layer.transposed:
        return [y, *last]
    return [c.emit(torch.permute, y, (2, 0, 1, 3)), *(c.emit(torch.transpose, s, 0, 1) for s in last)]
