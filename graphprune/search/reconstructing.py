"""What pruning without training says, for masks that are trained: where they start, and weights fitted after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from graphprune.calibration.channels import RATE_DISTORTION
from graphprune.calibration.inputs import SAMPLES
from graphprune.calibration.statistics import Statistics
from graphprune.errors import OptionError
from graphprune.methods import TrainedMethod
from graphprune.pruning import analyze
from graphprune.running import Feed
from graphprune.writeback import stored_arrays

if TYPE_CHECKING:
    from graphprune.search.search import Search


def check_start(init_from: str, method: TrainedMethod, structure: str) -> None:
    """Raises OptionError where ``--init-from`` has no masks to start."""
    if not init_from:
        return
    if structure == "nm":
        raise OptionError(
            f"--init-from {init_from} is for --structure channel and block: leave it out for nm"
        )
    if not method.learns or method.start is not None:
        raise OptionError(
            f"--init-from {init_from} is for masks that start where --mask-init says, and --method {method.name} "
            "has none: leave it out, or use --method smart"
        )


def start_scores(search: Search) -> np.ndarray:
    """Scores of ``method reconstruct``, kept units above all others: float ``[units]``. Raises OptionError."""
    return search.structure.reconstructed(_statistics(search))


def refit(search: Search) -> None:
    """Fit the kept weights, once masks are hard, by least squares to what the original computes.

    Today's weights are the start and what the ridge pulls to. Raises OptionError where there are no inputs to look at.
    """
    statistics, today = _statistics(search), search.trained()
    found = stored_arrays(search.structure.refitted(statistics, today), today)
    own = _tensors(search)
    with torch.no_grad():
        for name, array in found.items():
            if not np.array_equal(array, today[name]):
                own[name].copy_(torch.from_numpy(np.asarray(array, np.float32)))
    restate(search, statistics.batches)


@torch.no_grad()
def restate(search: Search, feeds: Sequence[Feed]) -> None:
    """Give every BatchNormalization the statistics that its inputs have now; scale and bias make up for them.

    In evaluation nothing changes. In training, where batches are normalised by their own statistics, the network
    then computes nearly what it does in evaluation; a fit by least squares alone leaves the two far apart.
    """
    imported, own = search.imported, _tensors(search)
    found = []
    for node in imported.graph.nodes:
        if node.op != "BatchNormalization" or node.attr("training_mode", 0):
            continue
        x, *stored = node.inputs[:5]
        assert x is not None
        names = [v.name for v in stored if v is not None and v.consumers == [node] and v.name in own]
        if len(names) == 4 and x.name in imported.nodes:
            found.append((imported.nodes[x.name], [own[n] for n in names], node.attr("epsilon", 1e-5)))
    sums = _Sums(search.module, {place for place, _, _ in found})
    training = search.module.training
    search.module.eval()
    for feed in feeds:
        sums.run(*(torch.from_numpy(feed[s.name]).to(sums.device) for s in imported.specs))
    search.module.train(training)
    for place, (scale, bias, mean, variance), epsilon in found:
        if place not in sums.totals:
            continue
        count, total, squares = sums.totals[place]
        centre = total / count
        spread = (squares / count - centre.square()).clamp_min(0)
        slope = scale.double() * torch.rsqrt(variance.double() + epsilon)
        bias.copy_(bias.double() + (centre - mean.double()) * slope)
        scale.copy_(slope * torch.sqrt(spread + epsilon))
        mean.copy_(centre)
        variance.copy_(spread)


class _Sums(fx.Interpreter):
    """Runs a module, and adds up some of its values by channel: count, sums, and sums of squares, in float64."""

    def __init__(self, module: fx.GraphModule, watched: set[str]) -> None:
        super().__init__(module)
        self.watched = watched
        self.device = next(module.parameters()).device
        self.totals: dict[str, tuple[int, torch.Tensor, torch.Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.watched:
            rows = result.double().movedim(1, 0).flatten(1)
            count, total, squares = self.totals.get(n.name, (0, 0, 0))
            self.totals[n.name] = (
                count + rows.shape[1],
                total + rows.sum(1),
                squares + rows.square().sum(1),
            )
        return result


def _tensors(search: Search) -> dict[str, torch.Tensor]:
    """Parameters and buffers of the module by the names of their ONNX tensors."""
    module = search.module
    own: dict[str, torch.Tensor] = dict(module.named_parameters()) | dict(module.named_buffers())
    return {name: own[attribute] for attribute, name in search.imported.tensors.items()}


def _statistics(search: Search) -> Statistics:
    source, options = search.source, search.structure.options
    # unless somebody chose an allocation, the one of --method reconstruct
    chosen = options.allocation != search.method.allocation
    allocation = options.allocation if chosen else RATE_DISTORTION
    options = replace(options, structure="channel", allocation=allocation)
    feeds = search.feeds() or _from_samples(search)
    if not feeds:
        raise OptionError("--init-from and --refit look at inputs: give data")
    analysis = analyze(source.ir, source.name, options, source.notes)
    return Statistics(source.ir, analysis, options, feeds)


def _from_samples(search: Search) -> list[Feed]:
    """The batches that a loop of one's own gave, up to SAMPLES samples."""
    names: Sequence[str] = [s.name for s in search.imported.specs]
    feeds: list[Feed] = []
    left = SAMPLES
    for inputs, _ in search.samples():
        if left <= 0:
            break
        feeds.append({n: x[:left].detach().cpu().numpy() for n, x in zip(names, inputs, strict=True)})
        left -= len(inputs[0])
    return feeds
