"""The proof of a rewrite: both models compute the same on the same random inputs, in onnxruntime.

How two runs are judged is in ``agreement``; where they are compared, in ``probes``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir

from graphprune.agreement import agree, run_all
from graphprune.feeds import InputSpec, input_specs
from graphprune.frontends.onnx import build_graph
from graphprune.measures import finite_or_none, is_vacuous, worst
from graphprune.probes import Probes
from graphprune.proof import default_tolerance
from graphprune.running import Feed, Results, Session, first_line
from graphprune.sampling import cannot_run, sample

RUNS = 3
"""Inputs on which both models are compared, each in another range."""


@dataclass(frozen=True)
class Equality:
    """What the comparison found.

    max_rel_diff: over all compared values and runs, ``max|rewritten - original| / max|original|``; infinite
        where shapes, non-finite entries or integers differ.
    vacuous: no compared value depends on the input, so that equality proves nothing.
    compared: names of the values. runs: inputs that counted.
    """

    max_rel_diff: float
    tolerance: float
    holds: bool
    vacuous: bool
    compared: list[str]
    runs: int
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON object. A number that is not finite becomes None, which JSON can hold."""
        return finite_or_none(asdict(self))


def compare_models(
    original: ir.Model, rewritten: ir.Model, shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> Equality:
    """Compare on RUNS random inputs. Neither model is changed.

    ``shapes``: sizes of inputs with dynamic axes; others are guessed. Raises ModelError where onnxruntime
    cannot run the original.
    """
    graph = build_graph(original, shapes)
    probes = Probes.choose(graph, rewritten)
    allowed = default_tolerance(graph)
    candidates = input_specs(original, graph, shapes)
    try:
        feeds, wanted = _sample(original, candidates, probes.exposed, seed)
    except Exception as error:  # onnxruntime's errors have no common base
        raise cannot_run(error) from error
    try:
        found = run_all(rewritten, feeds, probes.exposed)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        message = f"onnxruntime cannot run the rewritten model: {first_line(error)}"
        return Equality(math.inf, allowed, False, False, [], len(feeds), message)
    judged = agree(
        lambda inputs, names: run_all(original, inputs, names),
        rewritten, graph, probes, feeds, wanted, found, allowed,
    )  # fmt: skip
    most, vacuous = worst(judged.diffs), is_vacuous(wanted, judged.diffs)
    holds = most <= allowed
    if not holds:
        name = max(judged.diffs, key=lambda n: judged.diffs[n])
        verdict = f"the rewritten model differs from the original: {name!r} by {most:.1e}"
    elif vacuous:
        verdict = "nothing was proved: no compared value depends on the input"
    else:
        verdict = f"the rewritten model equals the original: largest relative difference {most:.1e}"
    message = f"{verdict} (tolerance {allowed:.0e})"
    return Equality(most, allowed, holds, vacuous, list(judged.diffs), len(judged.counted), message)


def _sample(
    original: ir.Model, candidates: Sequence[Sequence[InputSpec]], expose: Sequence[str], seed: int
) -> tuple[list[Feed], list[Results]]:
    """Inputs of the first sizes that ``original`` accepts, and its results. Raises onnxruntime's error."""
    failure: Exception | None = None
    with Session(original, expose) as session:
        for specs in candidates:
            try:
                return sample(session.run, specs, RUNS, seed)
            except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
                failure = failure or error
    assert failure is not None, "input_specs gives at least one candidate"
    raise failure
