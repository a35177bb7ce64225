"""``graphprune apply``: a plan carried out again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options, output, paths
from .showing import show

PlanArgument = Annotated[
    Path, typer.Argument(metavar="PLAN", help="The .plan.json that prune wrote.", show_default=False)
]


def apply(
    model: options.OriginalArgument,
    plan: PlanArgument,
    out: options.OutOption = None,
    format: options.FormatOption = "dense-zeros",
    json: options.JsonOption = None,
    force: options.ForceOption = False,
) -> None:
    """Prune ORIGINAL exactly as PLAN says, prove the result and write it with its plan.

    The file is, byte for byte, the one that PLAN was written with. Plans of N:M patterns need the .blocks.npz beside
    PLAN. A plan whose weights were trained or refitted cannot be applied: they are in the pruned file alone.

    \b
    Examples:
      graphprune apply model.onnx model.pruned.plan.json -o again.onnx
    """
    written = paths.default_output(model, ".pruned.onnx") if out is None else out
    from graphprune import api
    from graphprune.errors import OptionError
    from graphprune.formats import check_format
    from graphprune.plan import Plan, beside, plan_path

    sidecar = beside(written, ".blocks.npz")
    paths.check_json_target(json, model, plan, written, plan_path(written), sidecar, force=force)
    if paths.same_file(model, written):
        raise OptionError(f"{written} is the model itself: name another file with -o")
    paths.check_outputs(written, plan_path(written), force=force)
    structure = Plan.load(plan).structure
    check_format(format, structure)
    if structure in ("block", "nm"):
        paths.check_outputs(sidecar, force=force)
    loaded = api.load(model)
    size = loaded.stored_bytes
    paths.check_weights(loaded.ir, written, *paths.named(json), force=force)
    result = api.apply(loaded, plan)
    result.save(written, force=force, format=format)
    if json is not None:
        output.data(result.plan.to_json(), json)
    if json != "-":
        show(result, model, written, size)
    for sentence in result.analysis.notes:
        output.note(sentence)
