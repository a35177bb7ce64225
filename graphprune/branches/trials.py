"""How far the outputs move when branches go: every choice is cut out and run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from graphprune.branches.registry import Question
from graphprune.branches.removal import Chosen
from graphprune.branches.surgery import remove_branches
from graphprune.calibration.distances import output_distance
from graphprune.calibration.segments import Segment
from graphprune.errors import OptionError
from graphprune.graph import Graph
from graphprune.running import Feed, Results


class Trials:
    """Output distances of smaller models from the original on the feeds of ``question``; each is measured once.

    Raises OptionError for a model without float outputs, ModelError where onnxruntime cannot run it.
    """

    def __init__(self, question: Question) -> None:
        graph = question.removal.graph
        self._question = question
        self._outputs = [v.name for v in graph.outputs if v.dtype.startswith(("float", "bfloat"))]
        if not self._outputs:
            raise OptionError(
                "no output of the model holds floats, so that its change cannot be measured: use --method cosine"
            )
        self._found: dict[Chosen, float] = {}
        self._wanted = self._run(question.model)

    def distance(self, chosen: Iterable[int]) -> float:
        """``output_distance`` between the original and the model without ``chosen``; infinite where not a number."""
        key = frozenset(chosen)
        if key not in self._found:
            removal = self._question.removal
            gone = [removal.branches[i] for i in removal.outermost(key)]
            found = output_distance(self._wanted, self._run(remove_branches(self._question.model, gone)))
            self._found[key] = found if np.isfinite(found) else float("inf")
        return self._found[key]

    def _run(self, model: ir.Model) -> list[Results]:
        return run_outputs(model, self._question.removal.graph, self._outputs, self._question.feeds)


def run_outputs(model: ir.Model, graph: Graph, names: Sequence[str], feeds: Sequence[Feed]) -> list[Results]:
    """Values ``names`` for every feed; inputs of the model are passed on. Raises ModelError."""
    given = [v.name for v in graph.inputs]
    computed = [n for n in dict.fromkeys(names) if n not in given]
    with Segment(model, given, computed, {}) as segment:
        return [{n: f[n] for n in names if n in given} | segment.run(f) for f in feeds]
