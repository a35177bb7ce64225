"""Other sizes for a model whose axes are open: what holds at one size must hold at another.

The new sizes are small and even steps, which a network with strides and windows is likely to accept; equal
sizes stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphprune.graph import Graph

Shapes = dict[str, tuple[int, ...]]

WIDE = 64
"""Sizes from here on are images or long sequences."""

WIDE_STEP = 32
"""The usual stride of a backbone."""

STEP = 8


def batch_axes(open_axes: Mapping[str, Mapping[int, str]]) -> dict[str, set[int]]:
    """Input name -> open axes that are the batch: the first one, and others of the same name."""
    names = {axes[0] for axes in open_axes.values() if axes.get(0)}
    return {
        name: {a for a, symbol in axes.items() if a == 0 or symbol in names}
        for name, axes in open_axes.items()
    }


def other_batch(graph: Graph) -> Shapes:
    """The analysed sizes of every input with another batch: 2, or 3 where 2 was analysed."""
    return _changed(graph, batch_axes(graph.open_axes), {})


def other_sizes(graph: Graph) -> Shapes:
    """The analysed sizes of every input with another size on every open axis."""
    batch = batch_axes(graph.open_axes)
    return _changed(graph, batch, {n: set(axes) - batch[n] for n, axes in graph.open_axes.items()})


def _changed(graph: Graph, batch: Mapping[str, set[int]], steps: Mapping[str, set[int]]) -> Shapes:
    found: Shapes = {}
    for value in graph.inputs:
        if value.shape is None:
            continue
        sizes = list(value.shape)
        for axis in batch.get(value.name, ()):
            sizes[axis] = 3 if sizes[axis] == 2 else 2
        for axis in steps.get(value.name, ()):
            sizes[axis] += WIDE_STEP if sizes[axis] >= WIDE else STEP
        found[value.name] = tuple(sizes)
    return found
