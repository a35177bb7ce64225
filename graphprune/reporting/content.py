"""What a report says, as one JSON object: from an analysis with or without a plan, or from a plan alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphprune.history import History
from graphprune.plan import Indices, Plan
from graphprune.planning import alive_after
from graphprune.reporting.graph import graph_of
from graphprune.reporting.layers import layers_of

if TYPE_CHECKING:
    from graphprune.analysis import Analysis

Content = dict[str, Any]


@dataclass(frozen=True)
class Extras:
    """What neither the analysis nor the plan holds.

    files: bytes before and after, where known. recipe: its TOML text.
    """

    files: tuple[int, int] | None = None
    history: History = field(default_factory=History)
    recipe: str = ""
    notes: tuple[str, ...] = ()


def content_of(analysis: Analysis, plan: Plan | None = None, extras: Extras | None = None) -> Content:
    """The report on a model, and with ``plan`` on what was done to it. Raises PlanError where the two do not fit."""
    more = extras or Extras()
    found = analysis.to_dict()
    alive = analysis.everything if plan is None else alive_after(analysis.coupling, plan.removed)
    removed = [int((~alive[g.channels]).sum()) for g in analysis.groups]
    layers = layers_of(analysis, plan, alive)
    gone = {layer["index"] for layer in layers if layer["shape_after"] is None}
    graph = graph_of(analysis)
    for node in graph["nodes"]:
        node["gone"] = node["index"] in gone
    groups = [{**g, "removed": lost} for g, lost in zip(found["groups"], removed, strict=True)]
    return {
        "title": analysis.name.replace("\\", "/").rpartition("/")[2],
        "inputs": found["inputs"],
        "opset": found["opset"],
        "prunable_params": found["prunable_params"],
        "totals": _totals(analysis, plan, more, layers),
        **_done(plan),
        "layers": layers,
        "groups": groups,
        "constraints": found["constraints"],
        "graph": graph,
        "patterns": found.get("patterns"),
        "branches": found.get("branches"),
        "sensitivity": found.get("sensitivity"),
        **_extras(more, list(dict.fromkeys([*analysis.notes, *more.notes]))),
    }


def content_of_plan(plan: Plan, title: str, extras: Extras | None = None) -> Content:
    """What a plan tells without its original: no graph, no layers, but what was removed from every tensor."""
    more = extras or Extras()
    return {
        "title": title,
        "totals": _plan_totals(plan, more),
        **_done(plan),
        "tensors": [
            {"tensor": name, "axis": int(axis), "removed": _count(indices)}
            for name, axes in plan.removed.items()
            for axis, indices in axes.items()
        ],
        "branches": [{**entry, "gone": True} for entry in plan.branches] or None,
        **_extras(more, list(more.notes)),
    }


def _done(plan: Plan | None) -> Content:
    if plan is None:
        return {}
    return {
        "done": {
            "method": plan.method,
            "structure": plan.structure,
            "pattern": plan.pattern,
            "weights": plan.weights,
            "seed": plan.seed,
            "budget": plan.budget,
            "freed": plan.freed,
            "calibration": plan.calibration,
            "analysis": plan.analysis,
            "source_sha256": plan.source_sha256,
        },
        "fidelity": plan.fidelity,
    }


def _extras(more: Extras, notes: list[str]) -> Content:
    return {
        "metrics": dict(more.history.metrics),
        "history": dict(more.history.training),
        "curves": dict(more.history.curves),
        "recipe": more.recipe,
        "notes": notes,
    }


def _totals(
    analysis: Analysis, plan: Plan | None, more: Extras, layers: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    if plan is None:
        return [
            _total("parameters", analysis.cost.total_params),
            _total("MACs", analysis.cost.total_macs),
            _total("prunable channels", analysis.prunable_channels),
        ]
    totals = _plan_totals(plan, more)
    rows = [layer["channels"] for layer in layers if layer["channels"]]
    before, after = (sum(r[i] for r in rows) for i in (0, 1))
    channels = [_total("output channels of layers", before, after)] if after < before else []
    return [*totals[:2], *channels, *totals[2:]]


def _plan_totals(plan: Plan, more: Extras) -> list[dict[str, Any]]:
    stored = "non-zero parameters" if plan.blocks or plan.patterns else "parameters"
    pairs = ((stored, plan.params), ("MACs", plan.macs))
    totals = [_total(name, pair["before"], pair["after"]) for name, pair in pairs if pair]
    return [*totals, *([_total("file bytes", *more.files)] if more.files else [])]


def _total(name: str, before: int, after: int | None = None) -> dict[str, Any]:
    return {"name": name, "before": before, "after": after}


def _count(indices: Indices) -> int:
    return sum(len(i) if isinstance(i, list) else 1 for i in indices)
