"""The masked module against the file that was written from it."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import fx

from graphprune.errors import FidelityError
from graphprune.feeds import draw
from graphprune.fx.importer import Imported
from graphprune.measures import relative_difference
from graphprune.proof import default_tolerance
from graphprune.running import Session

RUNS = 2


def compare_module(module: fx.GraphModule, imported: Imported, pruned: ir.Model) -> float:
    """Largest relative difference between ``module`` in eval mode and ``pruned`` in onnxruntime.

    Inputs are random, of the analysed sizes. The module is left in the mode and place it was in.
    Raises FidelityError where the difference exceeds what the model's arithmetic allows.
    """
    training, device = module.training, next(module.parameters()).device
    allowed = default_tolerance(imported.graph)
    names = [v.name for v in imported.graph.outputs]
    worst = 0.0
    module.eval()
    try:
        with Session(pruned) as session, torch.no_grad():
            for seed in range(RUNS):
                feed = draw(imported.specs, "unit" if seed else "normal", [seed])
                outputs = module(*(torch.from_numpy(x).to(device) for x in feed.values()))
                tensors = [outputs] if isinstance(outputs, torch.Tensor) else outputs
                wanted = session.run(feed)
                for name, x in zip(names, tensors, strict=True):
                    if x.is_floating_point() and name in wanted:
                        found = x.detach().cpu().numpy().astype(wanted[name].dtype)
                        worst = max(worst, relative_difference(found, wanted[name]))
    finally:
        module.train(training)
    if not worst <= allowed:
        raise FidelityError(
            f"the written model differs from the trained module by {worst:.1e} (allowed {allowed:.0e}): "
            "this is a bug in graphprune, nothing was written, please report it"
        )
    return worst
