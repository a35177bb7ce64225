"""The proof: the pruned model computes what the masked original computes, on the same random inputs.

What is compared are the model's outputs and, because a small error hides behind a large number, the
operands of Concat nodes that outputs are made of. Behind operators that jump (TopK, NonMaxSuppression,
ArgMax, Round, comparisons...) a rounding difference may change everything and is no error. So the values
*before* the first such operators are compared too, and where an output behind them differs, both models
run once more with the jumping operators' results fed in: every piece between them is then compared.
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

VACUOUS_BELOW = 1e-6
"""An output whose relative change between two inputs is smaller does not depend on the input."""

_JUMPS = frozenset(
    {
        "TopK", "NonMaxSuppression", "ArgMax", "ArgMin", "Round", "Floor", "Ceil", "Sign", "Hardmax",
        "NonZero", "Unique", "Multinomial", "Bernoulli", "Greater", "Less", "GreaterOrEqual", "LessOrEqual",
        "Equal", "Mod",
    }
)  # fmt: skip
_MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Concat"})


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


# -- measures -----------------------------------------------------------------------------------------


def relative_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """``max|found - wanted| / max|wanted|`` over finite entries.

    Infinite where shapes differ, where one is NaN or infinite and the other is not, and where integers or
    booleans differ at all. 8-bit integers are quantised numbers: their differences count as shares of 255.
    """
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return math.inf
    if found.size == 0:
        return 0.0
    if found.dtype in (np.uint8, np.int8):
        return float(np.abs(found.astype(np.int64) - wanted.astype(np.int64)).max() / 255)
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, wanted) else math.inf
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)):
        return math.inf
    if not np.array_equal(found[~finite], wanted[~finite], equal_nan=True):
        return math.inf
    if not finite.any():
        return 0.0
    a, b = found[finite].astype(np.float64), wanted[finite].astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(np.float32).tiny))


def _differences(
    found: Sequence[Results], wanted: Sequence[Results], outputs: Iterable[str]
) -> dict[str, float]:
    """The worst relative difference of every value over the runs.

    A model output must be there in the same shape; an inner value whose shape changed was itself pruned
    and is left out.
    """
    must = set(outputs)
    diffs: dict[str, float] = {}
    for got, want in zip(found, wanted, strict=True):
        for name, array in want.items():
            other = got.get(name)
            if name not in must and (other is None or other.shape != array.shape):
                continue
            diff = math.inf if other is None else relative_difference(other, array)
            diffs[name] = max(diff, diffs.get(name, 0.0))
    return diffs


def _worst(diffs: Mapping[str, float]) -> float:
    return max(diffs.values(), default=0.0)


def _vacuous(masked: Sequence[Results], compared: Iterable[str]) -> bool:
    """Whether no compared value changes from one input to another."""
    for name in compared:
        arrays = [r[name] for r in masked if name in r]
        finite = [a for a in arrays if a.dtype.kind != "f" or np.isfinite(a).any()]
        for other in finite[1:]:
            if _change(finite[0], other) >= VACUOUS_BELOW:
                return False
    return True


def _change(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape == b.shape and a.dtype.kind == "f":
        both = np.isfinite(a) & np.isfinite(b)
        return relative_difference(a[both], b[both])
    return relative_difference(a, b)


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


# -- where to look ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Points:
    """Names of values to compare, and of operators behind which rounding may show.

    outputs: the model's. exposed: inner values compared besides. jumps: the operators. behind: everything
    that depends on one.
    """

    outputs: tuple[str, ...]
    exposed: tuple[str, ...]
    jumps: tuple[Node, ...]
    behind: frozenset[str]

    @classmethod
    def of(cls, graph: Graph, pruned: ir.Model) -> _Points:
        varying = _depends(graph, graph.inputs)
        jumps = tuple(n for n in graph.nodes if _jumps(n, varying))
        behind = _depends(graph, [out for n in jumps for out in n.outputs])
        first = [v for n in jumps for v in _float_inputs(n, varying) if v.name not in behind]
        parts = [p for v in (*graph.outputs, *first) for p in _concatenated(v)]
        outputs = tuple(v.name for v in graph.outputs)
        known = top_level_values(pruned.graph)
        inner = dict.fromkeys(v.name for v in (*first, *parts) if v.name in varying)
        exposed = tuple(n for n in inner if n not in outputs and n in known)
        return cls(outputs, exposed, jumps, frozenset(behind))

    def seams(self, original: Graph, pruned: Graph) -> list[Node]:
        """Jumping operators that are the same in both models and read values of the same shape."""
        found = []
        for node in self.jumps:
            names = [v.name for v in (*node.inputs, *node.outputs) if v is not None and v.name]
            same = all(
                n in pruned.values and pruned.values[n].shape == original.values[n].shape for n in names
            )
            twin = pruned.values[node.outputs[0].name].producer if same else None
            if twin is not None and (twin.op, twin.attrs) == (node.op, node.attrs) and _same_limits(node, twin):
                found.append(node)
        return found


def _same_limits(node: Node, twin: Node) -> bool:
    """Whether constant inputs (k, thresholds) agree: a fed result would hide that they do not."""
    pairs = zip(node.inputs, twin.inputs, strict=False)
    return all(
        a.known is not None and b.known is not None and np.array_equal(a.known, b.known)
        for a, b in pairs
        if a is not None and b is not None and a.stored
    )


def _behind_jumps(
    reference: ir.Model, pruned: ir.Model, feeds: Sequence[Feed], points: _Points, seams: Sequence[Node]
) -> dict[str, float]:
    """Differences of what lies behind jumping operators, given the masked original's jumps."""
    jumped = [v.name for n in seams for v in n.outputs if v.name]
    read = [v.name for n in seams for v in n.inputs if v is not None and v.dtype.startswith("float")]
    expose = [n for n in dict.fromkeys((*points.exposed, *read)) if n not in jumped]
    given = run_all(reference, feeds, jumped)
    taken = [n for n in jumped if all(n in results for results in given)]
    cut = {n: given[0][n].dtype for n in taken}
    full = [feed | {n: results[n] for n in taken} for feed, results in zip(feeds, given, strict=True)]
    wanted = run_all(reference, full, expose, cut)
    try:
        found = run_all(pruned, full, expose, cut)
    except Exception:  # noqa: BLE001
        return {n: math.inf for n in points.outputs if n in points.behind}
    return _differences(found, wanted, [n for n in points.outputs if n not in cut])


def _depends(graph: Graph, sources: Iterable[Value]) -> set[str]:
    """Names of values that change with the *data* of ``sources``; sizes are not data."""
    found = {v.name for v in sources}
    for node in graph.nodes:
        if node.op in ("Shape", "Size"):
            continue
        if any(v is not None and v.name in found for v in (*node.inputs, *node.captured)):
            found.update(v.name for v in node.outputs if v.known is None)
    return found


def _jumps(node: Node, varying: set[str]) -> bool:
    if node.op == "Cast":
        first = node.input(0)
        to = node.outputs[0].dtype
        jumping = first is not None and to != "" and not to.startswith(("float", "bfloat"))
    elif node.op == "MaxPool":
        jumping = len(node.outputs) > 1
    else:
        jumping = node.op in _JUMPS
    return jumping and any(True for _ in _float_inputs(node, varying))


def _float_inputs(node: Node, varying: set[str]) -> Iterator[Value]:
    for value in node.inputs:
        if value is not None and value.name in varying and value.dtype.startswith(("float", "bfloat")):
            yield value


def _concatenated(value: Value) -> Iterator[Value]:
    """The operands of Concat that ``value`` is put together from."""
    seen: set[str] = set()
    stack = [value]
    while stack:
        node = stack.pop().producer
        if node is None or node.op not in _MOVES or node.outputs[0].name in seen:
            continue
        seen.add(node.outputs[0].name)
        operands = [v for v in node.inputs if v is not None]
        if node.op == "Concat":
            yield from operands
            stack.extend(operands)
        else:
            stack.extend(operands[:1])
