"""LSTM, GRU and RNN: hidden units tie through the recurrence; both directions lose the same units."""

from __future__ import annotations

import numpy as np

from graphprune import labels as lab
from graphprune.coupler import Coupler
from graphprune.edits import SetAttr
from graphprune.graph import Node
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.records import Work
from graphprune.rules.registry import operand, rule

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@rule("LSTM", "GRU", "RNN")
def recurrent(
    c: Coupler, n: Node, x: Labels, w: Labels, r: Labels, b: Labels | None = None,
    lengths: Labels | None = None, *state: Labels | None,
) -> tuple[Labels, ...]:  # fmt: skip
    """Inputs tie to W's columns; a hidden unit goes from every gate, R, B and the state at once."""
    # x: t n i   w: d (gate h) i   r: d (gate h) h   b: d (2 gate h)   y: t d n h
    gates = _GATES[n.op]
    shapes = [o.shape or () for o in n.outputs]
    if not all(operand(n.input(i)).constant for i in (1, 2)):
        for each in (x, w, r, *state):
            c.freeze_all(each, Reason.DYNAMIC_WEIGHT, n)
        return tuple(Labels.untracked(s) for s in shapes)
    c.freeze_all(lengths, Reason.DATA_DEPENDENT, n)
    columns = lab.vector(w, 2)
    inputs = c.tie_vectors(c.only(x, 2, n), columns, n)
    if inputs is not None and columns is not None:
        c.contracted.append(columns)
    hidden = lab.vector(r, 2)
    if hidden is None:  # a single unit: nothing can go
        for each in (w, r):
            c.freeze_axes(each, [1], Reason.LAST, n)
        return tuple(Labels.untracked(s) for s in shapes)
    c.contracted.append(hidden)
    c.channels(hidden, n)
    _gate_rows(c, n, lab.vector(w, 1), gates, hidden)
    _gate_rows(c, n, lab.vector(r, 1), gates, hidden)
    if b is not None:
        _gate_rows(c, n, lab.vector(b, 1), 2 * gates, hidden)
    for index, each in enumerate(state):
        _state(c, n, index + 5, each, hidden)
    _work(c, n, x, gates, inputs, w.shape[2], hidden)
    c.on_prune(n, lambda kept: [SetAttr("hidden_size", kept.count(hidden))])
    return tuple(Labels.vector(s, len(s) - 1, hidden) if s else Labels.untracked(()) for s in shapes)


def _gate_rows(c: Coupler, n: Node, rows: np.ndarray | None, gates: int, hidden: np.ndarray) -> None:
    if rows is None:  # e.g. stored flat, and tied along its other axis
        c.freeze(hidden, Reason.FIXED_OPERAND, n)
    else:
        c.tie(rows.reshape(gates, -1), hidden)


def _state(c: Coupler, n: Node, index: int, x: Labels | None, hidden: np.ndarray) -> None:
    """Initial state, or the LSTM's peepholes (input 7, one row per gate)."""
    if x is None:
        return
    if n.op == "LSTM" and index == 7:
        _gate_rows(c, n, lab.vector(x, 1), 3, hidden)
    else:
        c.tie_vectors(hidden, c.only(x, x.rank - 1, n), n, Reason.STATE)


def _work(
    c: Coupler, n: Node, x: Labels, gates: int, inputs: np.ndarray | None, width: int, hidden: np.ndarray
) -> None:
    steps = float(x.shape[0] * x.shape[1] * gates * (2 if n.attr("direction") == "bidirectional" else 1))
    if inputs is None:
        c.works.append(Work(n, steps * width, (hidden,)))
    else:
        c.works.append(Work(n, steps, (hidden, inputs)))
    c.works.append(Work(n, steps, (hidden, hidden)))
