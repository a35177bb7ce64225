"""Where mask logits begin: importance from weights, activations, both, gradients, or nothing (A4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from graphprune.contractions import contraction_weights
from graphprune.graph import Graph
from graphprune.search.units import Units

JITTER = 1e-5
"""Of the spread: equal logits would converge to a share, not to 0 and 1 (theorem 2.1)."""

Inputs = tuple[torch.Tensor, ...]


def initial_logits(scores: np.ndarray, *, relative: bool, seed: int) -> np.ndarray:
    """Scores -> logits ``[units]``, at unit standard deviation where ``relative``; equal ones are told apart."""
    spread = float(scores.std())
    if relative:
        scores = (scores - scores.mean()) / spread if spread > 0 else np.zeros_like(scores)
        spread = 1.0
    noise = np.random.default_rng(seed).standard_normal(scores.size)
    return np.asarray(scores + JITTER * (spread or 1.0) * noise)


def needs_data(kind: str) -> bool:
    """Whether an initialisation looks at inputs."""
    return kind in ("activation", "weight-activation", "taylor")


def input_norms(
    module: fx.GraphModule, nodes: Mapping[str, str], graph: Graph, batches: Iterable[Inputs]
) -> dict[str, np.ndarray]:
    """Root mean square of every input channel of every contraction: weight name -> ``[inputs]``.

    ``module`` runs in eval mode, without gradients.
    """
    watched: dict[str, list[tuple[str, int]]] = {}
    for weight in contraction_weights(graph):
        for index, value in enumerate(weight.node.inputs[:2]):
            if value is None or value.constant or value.name not in nodes:
                continue
            axis = 1 if weight.node.op in ("Conv", "ConvTranspose") else -1
            if weight.node.op in ("MatMul", "Gemm"):
                turned = bool(weight.node.attr("transA" if index == 0 else "transB", 0))
                axis = -1 if (index == 0) != turned else -2
            watched.setdefault(nodes[value.name], []).append((weight.value.name, axis))
    recorder = _Recorder(module, watched)
    module.eval()
    with torch.no_grad():
        for inputs in batches:
            recorder.run(*inputs)
    return {name: np.sqrt(total / count) for name, (total, count) in recorder.sums.items()}


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, watched: Mapping[str, list[tuple[str, int]]]) -> None:
        super().__init__(module)
        self.watched = watched
        self.sums: dict[str, tuple[np.ndarray, int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        for name, axis in self.watched.get(n.name, ()):
            moved = result.detach().double().movedim(axis, 0).flatten(1)
            total = moved.square().sum(1).cpu().numpy()
            before, count = self.sums.get(name, (np.zeros_like(total), 0))
            self.sums[name] = (before + total, count + moved.shape[1])
        return result


def unit_scores(kind: str, units: Units, read: Any, norms: Mapping[str, np.ndarray] | None) -> np.ndarray:
    """Scores without gradients: float ``[units]`` (``norms`` from ``input_norms``, None without data)."""
    if kind == "constant":
        return np.zeros(units.size)
    if kind == "weight" or norms is None:
        return units.scores(read)
    return units.activation_scores(read, norms, weighted=kind == "weight-activation")
