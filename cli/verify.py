"""``graphprune verify``: does the pruned model compute what the masked original computes?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import options, output, paths

if TYPE_CHECKING:
    from graphprune.proof import Fidelity


def verify(
    original: options.OriginalArgument,
    pruned: options.PrunedArgument,
    plan: options.PlanOption = None,
    input_shape: options.InputShapeOption = None,
    json: options.JsonOption = None,
    force: options.ForceOption = False,
) -> None:
    """Rebuild the masked ORIGINAL from PRUNED and its plan, and compare the two on random inputs.

    The zeros of blocks and N:M patterns are counted in PRUNED as it is written.

    Exit code 0: they agree. 1: they do not. 2: there is no usable plan or model.

    \b
    Examples:
      graphprune verify model.onnx model.pruned.onnx
      graphprune verify model.onnx small.onnx --plan plans/small.plan.json
    """
    shapes = options.input_shapes(input_shape)
    paths.check_json_target(json, original, pruned, *([] if plan is None else [plan]), force=force)
    from graphprune import api
    from graphprune.errors import FidelityError

    first, second = api.load(original), api.load(pruned)
    for loaded in (first, second):
        paths.check_unread(loaded.ir, *paths.named(json))
    fidelity = api.verify(first, second, plan, input_shapes=shapes)
    if json is not None:
        output.data(fidelity.to_dict(), json)
    if json != "-":
        output.facts(proof(fidelity))
    if not fidelity.holds:
        raise FidelityError(fidelity.message)


def proof(fidelity: Fidelity) -> list[tuple[str, str]]:
    """The proof as lines of a report."""
    figure = f"max relative difference {fidelity.max_rel_diff:.1e} (tolerance {fidelity.tolerance:.0e})"
    verdict = f"holds: {figure} over {output.plural(fidelity.runs, 'random input')}"
    if fidelity.vacuous:
        verdict = f"VACUOUS: {fidelity.message}; {figure}"
    if not fidelity.holds:
        verdict = f"FAILS: {fidelity.message}"
    exact = "yes"
    if not fidelity.exact:
        exact = f"NO: statistics taken over the kept channels only, in {', '.join(fidelity.nodes)}"
    apart = f"{fidelity.distance_to_original:.2g}"
    distance = f"{apart} to the unpruned model (the proof says nothing about accuracy)"
    zeros = (
        [("zeros", f"counted in {output.plural(fidelity.patterned, 'weight')}")] if fidelity.patterned else []
    )
    return [("proof", verdict), *zeros, ("exact", exact), ("distance", distance)]
