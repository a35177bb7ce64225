"""Recurrent cells written out step by step, for the forms that torch's kernels do not compute."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional as F

from graphprune.fx.activations import activation
from graphprune.fx.conversion import Conversion
from graphprune.graph import Node

MAX_STEPS = 512
"""Longest sequence that is written out; torch's own kernels take any length."""

Cell = Callable[[fx.Node, list[fx.Node]], list[fx.Node]]
"""(what the input contributes to every gate, states) -> next states, the output first."""


@dataclass(frozen=True)
class Direction:
    """One direction of a recurrent node: ``weights`` are W, R, B and P, absent ones None."""

    c: Conversion
    node: Node
    weights: Sequence[fx.Node | None]
    names: list[str]
    reverse: bool

    def gate(self, index: int, x: fx.Node) -> fx.Node:
        """Activation ``index`` of the node on a gate, clipped before where the node says so."""
        clip = self.node.attr("clip")
        return self.act(index, self.c.emit(torch.clamp, x, -clip, clip) if clip else x)

    def act(self, index: int, x: fx.Node) -> fx.Node:
        """Activation ``index`` of the node.

        Raises ConversionError for an activation that needs parameters.
        """
        function = activation(self.names[index])
        if function is None:
            raise self.c.refuse(self.node, f"its activation {self.names[index]!r} is not supported")
        return function(self.c, x)

    def parts(self, index: int, count: int) -> list[fx.Node | None]:
        """Weight ``index`` cut into ``count`` equal pieces along its first axis."""
        weight = self.weights[index]
        return [None] * count if weight is None else list(cut(self.c, weight, count, 0))

    def add(self, *terms: fx.Node) -> fx.Node:
        """Sum of the terms."""
        total = terms[0]
        for term in terms[1:]:
            total = self.c.emit(torch.add, total, term)
        return total

    def mul(self, a: fx.Node | float, b: fx.Node | None) -> fx.Node:
        """Product of two tensors."""
        return self.c.emit(torch.mul, a, b)


CellBuilder = Callable[[Direction], Cell]


def cut(c: Conversion, x: fx.Node, count: int, axis: int) -> list[fx.Node]:
    """``x`` in ``count`` equal pieces along ``axis``."""
    pieces = c.emit(torch.chunk, x, count, axis)
    return [c.emit(operator.getitem, pieces, i) for i in range(count)]


def unroll(
    d: Direction, x: fx.Node, states: list[fx.Node], steps: int, build: CellBuilder
) -> tuple[fx.Node, list[fx.Node]]:
    """Outputs of every step, (time, batch, hidden), and the last states.

    Raises ConversionError for a sequence longer than MAX_STEPS.
    """
    c = d.c
    if steps > MAX_STEPS:
        raise c.refuse(d.node, f"it must be unrolled, and {steps} steps are more than {MAX_STEPS}")
    cell = build(d)
    input_bias = d.parts(2, 2)[0]
    inputs = c.emit(torch.unbind, c.emit(F.linear, x, d.weights[0], input_bias), 0)
    outputs: dict[int, fx.Node] = {}
    for t in reversed(range(steps)) if d.reverse else range(steps):
        states = cell(c.emit(operator.getitem, inputs, t), states)
        outputs[t] = states[0]
    return c.emit(torch.stack, [outputs[t] for t in range(steps)]), states


def rnn_cell(d: Direction) -> Cell:
    """H' = f(x + R H)."""
    bias = d.parts(2, 2)[1]

    def step(x: fx.Node, states: list[fx.Node]) -> list[fx.Node]:
        return [d.gate(0, d.add(x, d.c.emit(F.linear, states[0], d.weights[1], bias)))]

    return step


def lstm_cell(d: Direction) -> Cell:
    """The operator's equations; gates are stored as input, output, forget, cell.

    As in onnxruntime, clipping leaves the cell itself alone.
    """
    bias = d.parts(2, 2)[1]
    peep_input, peep_output, peep_forget = d.parts(3, 3)

    def peep(gate: fx.Node, weight: fx.Node | None, cell: fx.Node) -> fx.Node:
        return gate if weight is None else d.add(gate, d.mul(cell, weight))

    def step(x: fx.Node, states: list[fx.Node]) -> list[fx.Node]:
        hidden, cell = states
        gates = d.add(x, d.c.emit(F.linear, hidden, d.weights[1], bias))
        i, o, f, new = cut(d.c, gates, 4, -1)
        kept = d.mul(d.gate(0, peep(f, peep_forget, cell)), cell)
        cell = d.add(kept, d.mul(d.gate(0, peep(i, peep_input, cell)), d.gate(1, new)))
        return [d.mul(d.gate(0, peep(o, peep_output, cell)), d.act(2, cell)), cell]

    return step


def gru_cell(d: Direction) -> Cell:
    """The operator's equations; gates are stored as update, reset, hidden."""
    weights, biases = d.parts(1, 3), d.parts(2, 6)[3:]
    after = bool(d.node.attr("linear_before_reset", 0))

    def product(hidden: fx.Node, gate: int) -> fx.Node:
        return d.c.emit(F.linear, hidden, weights[gate], biases[gate])

    def step(x: fx.Node, states: list[fx.Node]) -> list[fx.Node]:
        (hidden,) = states
        x_update, x_reset, x_new = cut(d.c, x, 3, -1)
        update = d.gate(0, d.add(x_update, product(hidden, 0)))
        reset = d.gate(0, d.add(x_reset, product(hidden, 1)))
        seen = d.mul(reset, product(hidden, 2)) if after else product(d.mul(reset, hidden), 2)
        new = d.gate(1, d.add(x_new, seen))
        return [d.add(new, d.mul(update, d.c.emit(torch.sub, hidden, new)))]

    return step
