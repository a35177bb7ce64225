"""``report``: what a plan says, as HTML, with as much as can be found beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.applying import options_of
from graphprune.branches.pruning import branch_rows, branches_of
from graphprune.errors import PlanError
from graphprune.history import load_history
from graphprune.models import load
from graphprune.plan import Plan, beside_plan
from graphprune.pruning import analyze
from graphprune.reporting import Extras, content_of, content_of_plan, page
from graphprune.writing import written_bytes

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.models import Model

WITHOUT_ORIGINAL = (
    "written from the plan alone: the coupling graph, layers and groups need the original (--original MODEL)"
)


def report(plan: str | os.PathLike[str], original: Any = None) -> str:
    """The HTML report on a plan file: one text that needs nothing else.

    ``original``: the model that was pruned (what ``load`` takes). Without it the report has what the plan alone
    tells, and says what is missing. What lies beside the plan is used: the result's size, ``OUT.history.json``, and
    of a training ``OUT.recipe.toml``.

    Raises PlanError for what is no plan, or the plan of another model; ModelError for what is no model.
    """
    path = Path(plan)
    result = beside_plan(path, ".onnx")
    found = Plan.load(path)
    extras = Extras(history=load_history(path), recipe=_recipe(path, found))
    if original is None:
        return page(content_of_plan(found, result.name, replace(extras, notes=(WITHOUT_ORIGINAL,))))
    source = load(original)
    if found.source_sha256 != source.sha256():
        raise PlanError(f"the plan was not made from {source.name}: give the file that was pruned")
    if not found.budget:
        raise PlanError("the plan does not say its budget: it was changed, or was not written by graphprune")
    sizes = _sizes(source, result)
    return page(content_of(_analysis(source, found), found, replace(extras, files=sizes)))


def _analysis(source: Model, plan: Plan) -> Analysis:
    options = options_of(plan)
    analysis = analyze(source.ir, source.name, options, source.notes)
    if plan.structure == "branch":
        branches, _ = branches_of(source, analysis)
        gone = {entry["value"] for entry in plan.branches}
        analysis.branches = branch_rows(branches, gone)
    return analysis


def _recipe(path: Path, plan: Plan) -> str:
    """The recipe beside the plan of a training; of another method it would be left from another run."""
    recipe = beside_plan(path, ".recipe.toml")
    if plan.weights != "trained" or not recipe.is_file():
        return ""
    try:
        return recipe.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{recipe} is not a readable recipe: {error}") from error


def _sizes(source: Model, result: Path) -> tuple[int, int] | None:
    """Bytes before and after, where both models are in files."""
    before = source.stored_bytes
    return None if before is None or not result.is_file() else (before, written_bytes(result))
