"""Going through a model contraction by contraction, while the weights behind change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphprune.calibration.segments import Segment, needed_nodes
from graphprune.running import Feed, reads, top_level_values


class Walk:
    """Computes values of a model in graph order, each once, and keeps only what later nodes read.

    ``model`` may be replaced on the way by one of the same nodes with other weights.
    """

    def __init__(self, model: ir.Model, batches: Sequence[Feed], dtypes: Mapping[str, str]) -> None:
        self.model = model
        self._dtypes = dict(dtypes)
        self._states: list[Feed] = [dict(b) for b in batches]
        self._done: set[str] = set()
        """First outputs of nodes that have run."""

    def reach(self, name: str) -> list[np.ndarray]:
        """The value ``name``, batch by batch."""
        live = set(self._states[0]) if self._states else set()
        if name not in live:
            self._run(name, live)
        return [s[name] for s in self._states]

    def passes(self, name: str, values: set[str]) -> bool:
        """Whether computing ``name`` from what is known makes any of ``values``."""
        live = set(self._states[0]) if self._states else set()
        known = top_level_values(self.model.graph)
        needed = needed_nodes([known[name]], {known[n] for n in live if n in known})
        return any((v.name or "") in values for n in needed for v in n.outputs)

    def _run(self, name: str, live: set[str]) -> None:
        graph = self.model.graph
        values = top_level_values(graph)
        known = {values[n] for n in live if n in values}
        needed = needed_nodes([values[name]], known)
        self._done |= {_key(n) for n in needed}
        waiting: set[str] = {v.name or "" for v in graph.outputs}
        for node in graph:
            if _key(node) not in self._done:
                waiting.update(v.name or "" for v in reads(node))
        made = [v.name or "" for n in graph if n in needed for v in n.outputs]
        wanted = [n for n in made if n in waiting or n == name]
        wanted = [n for n in wanted if n]
        with Segment(self.model, sorted(live), wanted, self._dtypes) as part:
            for number, state in enumerate(self._states):
                found = part.run(state)
                self._dtypes.update({n: str(a.dtype) for n, a in found.items()})
                kept = {n: a for n, a in state.items() if n in waiting}
                self._states[number] = kept | found


def _key(node: ir.Node) -> str:
    return next((v.name for v in node.outputs if v.name), node.name or "")
