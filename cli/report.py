"""``graphprune report``: a plan as HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options, output, paths
from .apply import PlanArgument

OriginalOption = Annotated[
    Path | None,
    typer.Option(
        "--original",
        metavar="MODEL",
        help="The .onnx file that was pruned: for the coupling graph, the layers and the groups.",
        show_default=False,
    ),
]


def report(
    plan: PlanArgument,
    original: OriginalOption = None,
    out: options.OutOption = None,
    force: options.ForceOption = False,
) -> None:
    """Write what PLAN says as one HTML file that opens offline.

    Without --original the report has what the plan alone tells, and says what is missing. The result, the history
    and the recipe beside PLAN are used where they are.

    \b
    Examples:
      graphprune report small.plan.json --original model.onnx
      graphprune report small.plan.json -o small.html
    """
    from graphprune.plan import beside_plan

    written = beside_plan(plan, ".html") if out is None else out
    paths.check_html_target(written, plan, *([original] if original else []), force=force)
    from graphprune.reported import WITHOUT_ORIGINAL
    from graphprune.reported import report as made

    output.page(made(plan, original), written, force=force)
    output.text(f"written   {written}")
    if original is None:
        output.note(WITHOUT_ORIGINAL)
