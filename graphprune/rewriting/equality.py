"""The proof of a rewrite: both models compute the same on the same random inputs, in onnxruntime.

How two runs are judged is in ``agreement``; where they are compared, in ``probes``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.agreement import agree, run_all
from graphprune.errors import ModelError
from graphprune.feeds import STYLES, InputSpec, draw, input_specs
from graphprune.frontends.onnx import build_graph
from graphprune.measures import is_vacuous, worst
from graphprune.probes import Probes
from graphprune.proof import default_tolerance
from graphprune.running import Feed, Results, Session, first_line


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
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()
        }


def compare_models(
    original: ir.Model, rewritten: ir.Model, shapes: Mapping[str, tuple[int, ...]], seed: int = 0
) -> Equality:
    """Compare on one input in each of STYLES but the last. Neither model is changed.

    ``shapes``: sizes of inputs with dynamic axes; others are guessed. Raises ModelError where onnxruntime
    cannot run the original.
    """
    graph = build_graph(original, shapes)
    probes = Probes.choose(graph, rewritten)
    allowed = default_tolerance(graph)
    candidates = input_specs(original, graph, shapes)
    try:
        with Session(original, probes.exposed) as session:
            feeds, wanted = _sample(session, candidates, seed)
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(
            f"onnxruntime cannot run the original: {first_line(error)}; "
            "give sizes with --input-shape, or check that the model runs"
        ) from error
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
    session: Session, candidates: Sequence[Sequence[InputSpec]], seed: int
) -> tuple[list[Feed], list[Results]]:
    """Inputs of the first sizes that the model accepts, those with finite results where there are any.

    Raises onnxruntime's error where it accepts none.
    """
    failure: Exception | None = None
    for specs in candidates:
        runs: list[tuple[Feed, Results]] = []
        for style in STYLES:
            feed = draw(specs, style, [seed])
            try:
                runs.append((feed, session.run(feed)))
            except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
                failure = failure or error
        finite = [run for run in runs if _finite(run[1])]
        chosen = (finite if len(finite) > 1 else runs)[: len(STYLES) - 1]
        if chosen:
            return [feed for feed, _ in chosen], [results for _, results in chosen]
    raise failure or ValueError("it has no outputs")


def _finite(results: Results) -> bool:
    return all(np.isfinite(a).all() for a in results.values() if a.dtype.kind == "f")
