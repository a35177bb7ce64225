"""The proof: the pruned model computes what the masked original computes, on the same random inputs.

How two runs are judged is in ``agreement``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from graphprune.agreement import agree, run_all
from graphprune.errors import OptionError, PlanError
from graphprune.feeds import specs_at_other_sizes
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph
from graphprune.layouts import written_layouts
from graphprune.measures import differences, finite_or_none, is_vacuous, worst
from graphprune.pattern_check import pattern_fault
from graphprune.plan import Plan
from graphprune.plan_check import check_plan
from graphprune.probes import Probes
from graphprune.reference import build_reference
from graphprune.running import Feed, Results, Session, first_line
from graphprune.sampling import cannot_run, sample_sizes

SINGLE_TOLERANCE = 1e-4
"""float32 and float64 models. Real networks of 10 to 150 layers differ by 1e-7 to 1e-5."""

COARSE_TOLERANCE = 2e-2
"""Half-precision models (a rounding step is 1e-3 to 8e-3 at every layer), and models that quantise
activations (a sum taken in another order may round to the next of 255 steps)."""

LOCATE_ELEMENTS = 50_000_000
"""How many numbers may be looked at to say where two models part."""


@dataclass(frozen=True)
class Fidelity:
    """What ``verify`` found. ``holds`` says that the surgery is right, nothing about accuracy.

    max_rel_diff: over all compared values and runs, ``max|pruned - masked| / max|masked|``; infinite where
        shapes, non-finite entries or integers differ.
    exact: no operator was taken over the kept channels only (``nodes`` lists those).
    vacuous: no compared value depends on the input, so that equality proves nothing.
    distance_to_original: the same measure between the pruned and the unpruned original, over the values
        before saturating and jumping operators.
    compared: names of the values. runs: inputs that counted. patterned: weights whose zeros were counted in the
        file (blocks, N:M).
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
    patterned: int
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON object. A number that is not finite becomes None, which JSON can hold."""
        return finite_or_none(asdict(self))


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
    in another range. Where the model leaves sizes open, all but the last have other sizes than were analysed, if
    the original accepts them. ``tolerance`` defaults to what the model's arithmetic allows.

    Raises ModelError where onnxruntime cannot run the original, PlanError where the plan does not fit.
    """
    shapes = {name: tuple(sizes) for name, sizes in (input_shapes or {}).items()}
    graph = build_graph(original, shapes)
    check_plan(plan, graph)
    sizes = {name: value.shape for name, value in graph.values.items() if value.shape is not None}
    layouts = written_layouts(plan, sizes)
    probes = Probes.choose(graph, pruned)
    allowed = default_tolerance(graph) if tolerance is None else tolerance
    reference = build_reference(original, pruned, plan, graph=graph)
    feeds, plain, masked = _run_both(original, reference, graph, probes, max(runs, 2), seed)
    verdict = _Verdict(plan, allowed)
    try:
        found = run_all(pruned, feeds, probes.exposed)
    except OptionError:
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return verdict.failed(f"onnxruntime cannot run the pruned model: {first_line(error)}", len(feeds))
    fault = pattern_fault(pruned, layouts)
    if fault is not None:
        return verdict.failed(fault, len(feeds))
    judged = agree(
        lambda inputs, names: run_all(reference, inputs, names),
        pruned, graph, probes, feeds, masked, found, allowed,
    )  # fmt: skip
    diffs, names = judged.diffs, judged.before(probes) or judged.diffs
    distances = [differences(found[i], plain[i], probes.outputs, probes.bounded) for i in judged.counted]
    distance = max((d for run in distances for n, d in run.items() if n in names), default=0.0)
    where = ""
    if worst(diffs) > allowed:
        where = _first_difference(reference, pruned, graph, feeds[judged.counted[0]], allowed)
    alike = _alike(feeds)
    vacuous = is_vacuous(masked[:alike], diffs)
    collapsed = vacuous and not is_vacuous(plain[:alike], diffs)
    return verdict.of(diffs, distance, vacuous, collapsed, len(judged.counted), where)


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

    def of(
        self,
        diffs: Mapping[str, float],
        distance: float,
        vacuous: bool,
        collapsed: bool,
        runs: int,
        where: str,
    ) -> Fidelity:
        most = worst(diffs)
        holds = most <= self.tolerance
        if not holds:
            name = max(diffs, key=lambda n: diffs[n])
            message = (
                f"the pruned model differs from the masked original: {name!r} by {most:.1e} "
                f"(tolerance {self.tolerance:.0e}){where}"
            )
        elif vacuous:
            message = "nothing was proved: no compared value depends on the input"
            if collapsed:
                message += " any more, as the original's do: too much of a layer is gone, prune less"
        else:
            message = (
                f"the pruned model equals the masked original: largest relative difference {most:.1e} "
                f"(tolerance {self.tolerance:.0e})"
            )
        return self._fidelity(most, holds, vacuous, distance, list(diffs), runs, message)

    def failed(self, message: str, runs: int) -> Fidelity:
        return self._fidelity(math.inf, False, False, math.inf, [], runs, message)

    def _fidelity(
        self,
        most: float,
        holds: bool,
        vacuous: bool,
        distance: float,
        compared: list[str],
        runs: int,
        message: str,
    ) -> Fidelity:
        nodes = sorted(self.plan.kept_only)
        return Fidelity(
            max_rel_diff=most,
            tolerance=self.tolerance,
            holds=holds,
            exact=not nodes,
            vacuous=vacuous,
            nodes=nodes,
            distance_to_original=distance,
            compared=compared,
            runs=runs,
            patterned=len(self.plan.blocks) + len(self.plan.patterns),
            message=message,
        )


# -- running ------------------------------------------------------------------------------------------


def _run_both(
    original: ir.Model, reference: ir.Model, graph: Graph, probes: Probes, runs: int, seed: int
) -> tuple[list[Feed], list[Results], list[Results]]:
    """Inputs that the original accepts, at two sizes of every open axis where it can; its results and the reference's.

    The pruned model and the reference have no say: they must accept what the original accepts.
    """
    others, analysed = specs_at_other_sizes(graph)
    try:
        with Session(original, probes.exposed) as session:
            feeds, plain = sample_sizes(session.run, others, analysed, runs, seed)
    except OptionError:
        raise
    except Exception as error:  # onnxruntime's errors have no common base
        raise cannot_run(error) from error
    try:
        return feeds, plain, run_all(reference, feeds, probes.exposed)
    except OptionError:
        raise
    except Exception as error:
        raise PlanError(
            f"the masked original cannot be run: {first_line(error)}; the plan does not fit the model"
        ) from error


def _alike(feeds: Sequence[Feed]) -> int:
    """How many inputs, from the first on, have the same sizes."""
    sizes = [{name: array.shape for name, array in feed.items()} for feed in feeds]
    return sizes.count(sizes[0])


# -- where to look --------------------------------------------------------------------------------------


def _first_difference(reference: ir.Model, pruned: ir.Model, graph: Graph, feed: Feed, allowed: float) -> str:
    """Where to look: the first value, in the order of computation, that differs. Empty where unknown."""
    left = LOCATE_ELEMENTS
    names = []
    for node in graph.nodes:
        for value in node.outputs:
            left -= value.size
            if value.dtype == "float32" and not value.constant and left > 0:
                names.append(value.name)
    try:
        wanted = run_all(reference, [feed], names)[0]
        found = run_all(pruned, [feed], names)[0]
    except Exception:  # noqa: BLE001 - a hint only
        return ""
    diffs = differences(found, wanted, ())
    for node in graph.nodes:
        for value in node.outputs:
            if diffs.get(value.name, 0.0) > allowed:
                return f"; the first value to differ is {value.name!r} (node {node.name!r})"
    return ""
