"""Whether a written model computes what a reference does, judged on inputs that can tell.

The reference is a file in onnxruntime (``proof``) or a module in PyTorch (``search.comparing``). Which values
are compared is decided in ``probes``, how far apart they are in ``measures``. Inputs on which the
reference itself amplifies rounding cannot tell right from wrong and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph, Node
from graphprune.measures import differences, worst, worst_by_name
from graphprune.probes import Probes, float_inputs
from graphprune.running import Feed, Results, Session

STEADY_BELOW = 0.1
"""Share of the tolerance by which rounding of the input may move a run that counts (see _noise)."""

NUDGES = 4
"""Rounding steps in random directions that an input must bear to count."""

NOISE_MARGIN = 10.0
"""Differences behind a seam, as multiples of what rounding the input does there, that rounding explains."""

MOST_NOISE = 0.02
"""Larger differences are never explained by rounding: the seams are fed instead."""

Run = Callable[[Sequence[Feed], Iterable[str]], list[Results]]
"""Inputs and names of inner values -> for each input the outputs, and those of the values that there are."""


@dataclass(frozen=True)
class Agreement:
    """``diffs``: the largest difference of every compared value. ``counted``: numbers of the feeds that count."""

    diffs: dict[str, float]
    counted: list[int]

    def before(self, probes: Probes) -> dict[str, float]:
        """Differences of values that do not depend on a seam."""
        return {n: d for n, d in self.diffs.items() if n not in probes.behind}


def run_all(
    model: ir.Model,
    feeds: Iterable[Feed],
    expose: Iterable[str] = (),
    cut: Mapping[str, np.dtype[Any]] | None = None,
) -> list[Results]:
    """Outputs and exposed values of one model for several inputs; the session is gone afterwards."""
    with Session(model, expose, cut) as session:
        return [session.run(feed) for feed in feeds]


def agree(
    reference: Run,
    written: ir.Model,
    graph: Graph,
    probes: Probes,
    feeds: Sequence[Feed],
    wanted: Sequence[Results],
    found: Sequence[Results],
    allowed: float,
) -> Agreement:
    """Compare ``found`` (of ``written``) with ``wanted`` (of ``reference``), and look closer where they differ.

    ``graph``: the reference's analysis, at the sizes that the comparison is about.
    """
    result = _compared(range(len(feeds)), wanted, found, probes)
    if worst(result.diffs) > allowed:
        noise = _noise(reference, feeds, wanted, probes)
        limit = allowed * STEADY_BELOW
        before_seams = [{n: d for n, d in moved.items() if n not in probes.behind} for moved in noise]
        steady = _steady(before_seams, range(len(feeds)), limit)
        result = _compared(steady, wanted, found, probes)
        if worst(result.before(probes)) <= allowed:
            result = _less_rounding(result, wanted, found, probes, noise, allowed)
    before = result.before(probes)
    if worst(before) <= allowed < worst(result.diffs):
        shapes = {v.name: v.shape for v in graph.inputs if v.shape is not None}
        seams = probes.common_seams(graph, build_graph(written, shapes))
        counted = [feeds[i] for i in result.counted]
        behind = _between_seams(reference, written, counted, probes, seams)
        result = Agreement(before | behind, result.counted)
    return result


def _compared(
    numbers: Sequence[int], wanted: Sequence[Results], found: Sequence[Results], probes: Probes
) -> Agreement:
    runs = (differences(found[i], wanted[i], probes.outputs, probes.bounded) for i in numbers)
    return Agreement(worst_by_name(runs), list(numbers))


def _less_rounding(
    result: Agreement,
    wanted: Sequence[Results],
    found: Sequence[Results],
    probes: Probes,
    noise: Sequence[Mapping[str, float]],
    allowed: float,
) -> Agreement:
    """``result`` less the differences behind a seam that rounding explains (``noise`` of every feed and value).

    A value stays compared on at least one feed.
    """
    runs = []
    for i in result.counted:
        diffs = differences(found[i], wanted[i], probes.outputs, probes.bounded)
        explained = {n: min(NOISE_MARGIN * noise[i].get(n, 0.0), MOST_NOISE) for n in probes.behind}
        runs.append({n: d for n, d in diffs.items() if d <= allowed or d > explained.get(n, 0.0)})
    return Agreement(result.diffs | worst_by_name(runs), result.counted)


def _noise(
    reference: Run, feeds: Sequence[Feed], wanted: Sequence[Results], probes: Probes
) -> list[dict[str, float]]:
    """Per feed: how far every value of the reference moves when every float of the input moves by a rounding step.

    The written model has no part in it.
    """
    moved: list[dict[str, float]] = [{} for _ in feeds]
    for seed in range(NUDGES):
        nudged = [{n: _nudged(a, seed) for n, a in feed.items()} for feed in feeds]
        for i, (before, after) in enumerate(zip(wanted, reference(nudged, probes.exposed), strict=True)):
            moved[i] = worst_by_name([moved[i], differences(after, before, (), probes.bounded)])
    return moved


def _steady(noise: Sequence[Mapping[str, float]], numbers: Sequence[int], limit: float) -> list[int]:
    """Those of ``numbers`` on which the reference does not amplify rounding, or all where it always does."""
    return [i for i in numbers if worst(noise[i]) <= limit] or list(numbers)


def _nudged(array: np.ndarray, seed: int) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], array.dtype), array.shape)
    moved: np.ndarray = (array * (1 + np.finfo(array.dtype).eps * signs)).astype(array.dtype)
    return moved


def _between_seams(
    reference: Run, written: ir.Model, feeds: Sequence[Feed], probes: Probes, seams: Sequence[Node]
) -> dict[str, float]:
    """Differences of what lies behind the seams, given the results that the reference has there."""
    results = [v.name for n in seams for v in n.outputs if v.name]
    read = [v.name for n in seams for v in float_inputs(n)]
    wanted = reference(feeds, [*results, *probes.exposed, *read])
    cut = {n: wanted[0][n].dtype for n in results if all(n in run for run in wanted)}
    expose = [n for n in dict.fromkeys((*probes.exposed, *read)) if n not in cut]
    full = [feed | {n: run[n] for n in cut} for feed, run in zip(feeds, wanted, strict=True)]
    outputs = [n for n in probes.outputs if n not in cut]
    try:
        found = run_all(written, full, expose, cut)
    except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
        return {n: math.inf for n in outputs if n in probes.behind}
    pairs = zip(found, wanted, strict=True)
    return worst_by_name(differences(f, w, outputs, probes.bounded) for f, w in pairs)
