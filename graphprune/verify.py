"""The proof: the pruned model computes what the masked original computes, on the same random inputs.

Which values are compared is decided in ``probes``, how far apart they are in ``measures``. Inputs on
which the masked original itself amplifies rounding cannot tell right from wrong and are left out.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.errors import ModelError, PlanError
from graphprune.feeds import STYLES, InputSpec, draw, input_specs
from graphprune.frontends.loading import load_model
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph, Node, Value
from graphprune.plan import Plan, plan_path
from graphprune.reference import build_reference
from graphprune.running import Feed, Results, Session, first_line, top_level_values

SINGLE_TOLERANCE = 1e-4
"""float32 and float64 models. Real networks of 10 to 150 layers differ by 1e-7 to 1e-5."""

COARSE_TOLERANCE = 2e-2
"""Half-precision models (a rounding step is 1e-3 to 8e-3 at every layer), and models that quantise
activations (a sum taken in another order may round to the next of 255 steps)."""

STEADY_BELOW = 0.1
"""Share of the tolerance by which rounding of the input may move a run that counts (see _steady)."""


@dataclass(frozen=True)
class Fidelity:
    """What ``verify`` found. ``holds`` says that the surgery is right, nothing about accuracy.

    max_rel_diff: over all compared values and runs, ``max|pruned - masked| / max|masked|``; infinite where
        shapes, non-finite entries or integers differ.
    exact: no operator was taken over the kept channels only (``nodes`` lists those).
    vacuous: no compared value depends on the input, so that equality proves nothing.
    distance_to_original: the same measure between the pruned and the unpruned original.
    """

    max_rel_diff: float
    tolerance: float
    holds: bool
    exact: bool
    vacuous: bool
    nodes: list[str]
    distance_to_original: float
    compared: list[str]
    runs: int
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON object. A number that is not finite becomes None, which JSON can hold."""
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()
        }


def verify_models(
    original: ir.Model,
    pruned: ir.Model,
    plan: Plan,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    runs: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
) -> Fidelity:
    """Compare ``pruned`` with ``original`` masked by ``plan`` in onnxruntime. Neither model is changed.

    ``runs`` inputs are drawn (at least two: one cannot show that the output depends on the input), each
    in another range. ``tolerance`` defaults to what the model's arithmetic allows.

    Raises ModelError where onnxruntime cannot run the original, PlanError where the plan does not fit.
    """
    shapes = {name: tuple(sizes) for name, sizes in (input_shapes or {}).items()}
    graph = build_graph(original, shapes)
    points = _Points.of(graph, pruned)
    allowed = default_tolerance(graph) if tolerance is None else tolerance
    reference = build_reference(original, pruned, plan, graph=graph)
    feeds, plain, masked = _run_both(original, reference, graph, shapes, points, max(runs, 2), seed)
    verdict = _Verdict(plan, allowed, len(feeds))
    try:
        found = run_all(pruned, feeds, points.exposed)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return verdict.failed(f"onnxruntime cannot run the pruned model: {first_line(error)}")
    diffs = _differences(found, masked, points.outputs)
    before = {n: d for n, d in diffs.items() if n not in points.behind}
    if _worst(before) <= allowed < _worst(diffs):
        seams = points.seams(graph, build_graph(pruned, shapes))
        diffs = before | _behind_jumps(reference, pruned, feeds, points, seams)
    distance = _worst(_differences(found, plain, before or diffs))
    return verdict.of(diffs, distance, _vacuous(masked, diffs))


def verify_files(
    original_path: str | os.PathLike[str],
    pruned_path: str | os.PathLike[str],
    plan_path_: str | os.PathLike[str] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Fidelity:
    """``verify_models`` on files; the plan is the one beside the pruned file unless another is named.

    Raises PlanError where the plan is missing or was made from another original.
    """
    pruned = Path(pruned_path)
    plan = Plan.load(plan_path(pruned) if plan_path_ is None else Path(plan_path_))
    original_model, _ = load_model(original_path)
    if plan.source_sha256 != source_sha256(original_path):
        raise PlanError(
            f"the plan was not made from {os.fspath(original_path)}: give the file that was pruned "
            f"(sha256 {plan.source_sha256[:12]}...)"
        )
    return verify_models(original_model, load_model(pruned)[0], plan, input_shapes=input_shapes)


def source_sha256(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_tolerance(graph: Graph) -> float:
    """SINGLE_TOLERANCE, or COARSE_TOLERANCE where weights are half precision or activations quantised."""
    for node in graph.nodes:
        op = node.op.removeprefix("com.microsoft::")
        first = node.input(0)
        if op == "QuantizeLinear" and first is not None and not first.constant:
            return COARSE_TOLERANCE
        if op.startswith(("DynamicQuantize", "QLinear", "QGemm", "QAttention")):
            return COARSE_TOLERANCE
    weights = {v.size: v.dtype for v in graph.stored() if v.dtype.startswith(("float", "bfloat"))}
    inputs = {v.size: v.dtype for v in graph.inputs if v.dtype.startswith(("float", "bfloat"))}
    sizes = weights or inputs
    half = bool(sizes) and sizes[max(sizes)] in ("float16", "bfloat16")
    return COARSE_TOLERANCE if half else SINGLE_TOLERANCE


# -- the verdict -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Verdict:
    plan: Plan
    tolerance: float
    runs: int

    def of(self, diffs: Mapping[str, float], distance: float, vacuous: bool) -> Fidelity:
        worst = _worst(diffs)
        holds = worst <= self.tolerance
        if not holds:
            name = max(diffs, key=lambda n: diffs[n])
            message = (
                f"the pruned model differs from the masked original: {name!r} by {worst:.1e} "
                f"(tolerance {self.tolerance:.0e})"
            )
        elif vacuous:
            message = "nothing was proved: no compared value depends on the input"
        else:
            message = (
                f"the pruned model equals the masked original: largest relative difference {worst:.1e} "
                f"(tolerance {self.tolerance:.0e})"
            )
        return self._fidelity(worst, holds, vacuous, distance, list(diffs), message)

    def failed(self, message: str) -> Fidelity:
        return self._fidelity(math.inf, False, False, math.inf, [], message)

    def _fidelity(
        self, worst: float, holds: bool, vacuous: bool, distance: float, compared: list[str], message: str
    ) -> Fidelity:
        nodes = sorted(self.plan.kept_only)
        return Fidelity(
            max_rel_diff=worst,
            tolerance=self.tolerance,
            holds=holds,
            exact=not nodes,
            vacuous=vacuous,
            nodes=nodes,
            distance_to_original=distance,
            compared=compared,
            runs=self.runs,
            message=message,
        )


# -- running ------------------------------------------------------------------------------------------


def run_all(
    model: ir.Model,
    feeds: Iterable[Feed],
    expose: Iterable[str] = (),
    cut: Mapping[str, np.dtype[Any]] | None = None,
) -> list[Results]:
    """Outputs and exposed values of one model for several inputs; the session is gone afterwards."""
    with Session(model, expose, cut) as session:
        return [session.run(feed) for feed in feeds]


def _run_both(
    original: ir.Model,
    reference: ir.Model,
    graph: Graph,
    shapes: Mapping[str, tuple[int, ...]],
    points: _Points,
    runs: int,
    seed: int,
) -> tuple[list[Feed], list[Results], list[Results]]:
    """Inputs that the original accepts, its results and the masked original's.

    A batch of 2 is given up where either fails on it: the reference may hold indices that were worked
    out for batch 1. The pruned model then has no say: it must accept what these two accept.
    """
    candidates = input_specs(original, graph, shapes)
    for number, specs in enumerate(candidates):
        last = number == len(candidates) - 1
        try:
            feeds, plain = _sample(original, specs, points.exposed, runs, seed)
        except Exception as error:
            if last:
                raise ModelError(
                    f"onnxruntime cannot run the original: {first_line(error)}; "
                    "give sizes with --input-shape, or check that the model runs"
                ) from error
            continue
        try:
            return feeds, plain, run_all(reference, feeds, points.exposed)
        except Exception as error:
            if last:
                raise PlanError(
                    f"the masked original cannot be run: {first_line(error)}; the plan does not fit the model"
                ) from error
    raise AssertionError("unreachable: the last candidate returns or raises")


def _sample(
    model: ir.Model, specs: Sequence[InputSpec], expose: Iterable[str], runs: int, seed: int
) -> tuple[list[Feed], list[Results]]:
    """Per run the first of STYLES (starting from another one each time) with finite results.

    Raises onnxruntime's error where no style works.
    """
    feeds: list[Feed] = []
    results: list[Results] = []
    failure: Exception | None = None
    with Session(model, expose) as session:
        for number in range(runs):
            accepted: tuple[Feed, Results] | None = None
            for style in _styles(number):
                feed = draw(specs, style, [seed, number])
                try:
                    found = session.run(feed)
                except Exception as error:  # noqa: BLE001
                    failure = failure or error
                    continue
                finite = all(np.isfinite(a).all() for a in found.values() if a.dtype.kind == "f")
                if accepted is None or finite:
                    accepted = feed, found
                if finite:
                    break
            if accepted is not None:
                feeds.append(accepted[0])
                results.append(accepted[1])
    if not feeds:
        raise failure or ValueError("it has no outputs")
    return feeds, results


def _styles(number: int) -> tuple[str, ...]:
    ranges = STYLES[:-1]
    start = number % len(ranges)
    return (*ranges[start:], *ranges[:start], STYLES[-1])


