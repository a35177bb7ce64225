"""The masked module against the file that was written from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from graphprune.agreement import agree, run_all
from graphprune.errors import own_bug
from graphprune.fx.importer import Imported
from graphprune.fx.recorder import Recorder
from graphprune.measures import worst
from graphprune.probes import Probes
from graphprune.proof import default_tolerance
from graphprune.running import Feed, Results
from graphprune.sampling import sample
from graphprune.search.answers import every

RUNS = 2
"""Inputs on which module and file are compared."""


def compare_module(module: fx.GraphModule, imported: Imported, pruned: ir.Model) -> float:
    """Largest relative difference between ``module`` in eval mode and ``pruned`` in onnxruntime.

    Inputs are random, of the analysed sizes; values are compared and inputs judged as in the proof, with
    the module in the place of the masked original. The module is left in the mode and place it was in.
    Raises FidelityError where the difference exceeds what the model's arithmetic allows.
    """
    graph = imported.graph
    allowed = default_tolerance(graph)
    probes = Probes.choose(graph, pruned)
    training = module.training
    module.eval()
    try:
        run = _ModuleRun(module, imported)
        feeds, wanted = sample(lambda feed: run([feed], probes.exposed)[0], imported.specs, RUNS, 0)
        found = run_all(pruned, feeds, probes.exposed)
        difference = worst(agree(run, pruned, graph, probes, feeds, wanted, found, allowed).diffs)
    finally:
        module.train(training)
    if not difference <= allowed:
        raise own_bug(
            f"the written model differs from the trained module by {difference:.1e} (allowed {allowed:.0e})"
        )
    return difference


class _ModuleRun:
    """Runs the module and reads values by their ONNX names; those that it does not compute are left out."""

    def __init__(self, module: fx.GraphModule, imported: Imported) -> None:
        self.module, self.imported = module, imported
        self.device = next(module.parameters()).device

    @torch.no_grad()
    def __call__(self, feeds: Sequence[Feed], expose: Iterable[str]) -> list[Results]:
        outputs = [v.name for v in self.imported.graph.outputs]
        nodes = {name: self.imported.nodes[name] for name in expose if name in self.imported.nodes}
        return [self._run(feed, outputs, nodes) for feed in feeds]

    def _run(self, feed: Feed, outputs: Sequence[str], nodes: dict[str, str]) -> Results:
        recorder = Recorder(self.module, nodes.values())
        result = recorder.run(*(torch.from_numpy(x).to(self.device) for x in feed.values()))
        found = {name: recorder.found[node] for name, node in nodes.items() if node in recorder.found}
        found |= dict(zip(outputs, every(result), strict=True))
        return {name: self._array(name, x) for name, x in found.items()}

    def _array(self, name: str, x: torch.Tensor) -> np.ndarray:
        """In the type that the file computes in."""
        array = x.detach().cpu().numpy()
        dtype = self.imported.graph.values[name].dtype
        return array.astype("float32" if dtype == "bfloat16" else dtype) if dtype else array
