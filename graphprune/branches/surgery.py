"""Residual branches out of an ONNX model: the shortcut takes the place of the sum."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphprune.residuals import Branch
from graphprune.sizes import Surgery, node_key
from graphprune.surgery import remove_dead


def remove_branches(model: ir.Model, branches: Iterable[Branch]) -> ir.Model:
    """A copy of ``model`` (whose weights it shares) without ``branches``, which were found in its graph.

    Readers of a sum read its shortcut instead. Where the sum is an output of the model, or the shortcut an input, an
    Identity keeps the names apart. What nothing reads any more goes; everything else stays as it is.
    """
    done = Surgery(model.clone())
    graph = done.model.graph
    nodes = {node_key(n): n for n in graph}
    for branch in branches:
        add = nodes[node_key(branch.add)]
        out, shortcut = add.outputs[0], add.inputs[1 - branch.operand]
        assert shortcut is not None
        if out.is_graph_output() or shortcut.is_graph_input():
            shortcut = _identity(done, add, out, shortcut)
        out.replace_all_uses_with(shortcut, replace_graph_outputs=True)
    remove_dead(model, done)
    return done.model


def _identity(done: Surgery, add: ir.Node, out: ir.Value, shortcut: ir.Value) -> ir.Value:
    """An Identity of ``shortcut`` that takes over the name of ``out``."""
    node = ir.Node("", "Identity", [shortcut], name=done.unique(f"{add.name or out.name}_shortcut"))
    new = node.outputs[0]
    new.type, new.shape, name = out.type, out.shape, out.name
    out.name = done.unique(f"{name}_unused")
    new.name = name
    add.append(node)
    return new
