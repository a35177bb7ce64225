"""The report on a pruned model: before and after, the budget, the proof, the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import output
from .output import Column, number, percent
from .verify import proof

if TYPE_CHECKING:
    from graphprune import PruneResult


def show(
    result: PruneResult, source: Path, target: Path, size_before: int | None, html: Path | None = None
) -> None:
    """The report for people; a PyTorch module has no size before. ``html``: another file that was written."""
    from graphprune.plan import beside, history_path, plan_path
    from graphprune.writing import written_bytes

    plan = result.plan
    files = [target, plan_path(target), *([beside(target, ".blocks.npz")] if result.layouts else [])]
    files += [history_path(target)] if result.history else []
    files += [] if html is None else [html]
    stored = "non-zero parameters" if plan.blocks or plan.patterns else "parameters"
    sizes = [
        (stored, plan.params["before"], plan.params["after"]),
        ("MACs", plan.macs["before"], plan.macs["after"]),
        _units(result),
    ]
    if size_before is not None:
        sizes.append(("file bytes", size_before, written_bytes(target)))
    output.table(
        f"{source.name} -> {target.name}",
        [
            Column(""),
            Column("before", right=True),
            Column("after", right=True),
            Column("removed", right=True),
        ],
        [(name, number(a), number(b), percent(a - b, a)) for name, a, b in sizes],
    )
    output.text()
    budget = plan.budget
    output.facts(
        [
            ("method", f"{plan.method} ({plan.structure})"),
            (
                "budget",
                f"{budget['kind']} {budget['requested']:g} requested, {budget['achieved']:.4f} achieved",
            ),
            *latency(budget),
            *freed(result),
            *[("gone", f"{entry['node']} without {entry['removed']}") for entry in plan.branches],
            *[(when, f"{100 * value:.2f} %") for when, value in result.metrics.items()],
            *proof(result.fidelity),
            ("written", ", ".join(str(path) for path in files)),
        ]
    )


def latency(budget: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a budget of latency was measured on."""
    if "measured" not in budget:
        return []
    shares = " and ".join(f"{share:.3f}" for share in budget["measured"])
    threads = output.plural(budget["threads"], "thread") if budget["threads"] else "onnxruntime's own threads"
    where = f"{budget['machine']}, {threads}, onnxruntime {budget['onnxruntime']} {budget['provider']}"
    return [("latency", f"{shares} of the original's, measured on {where}")]


def _units(result: PruneResult) -> tuple[str, int, int]:
    """What the structure counts: before and after."""
    branches = result.analysis.branches
    if branches is not None:
        return "residual branches", len(branches), len(branches) - sum(b["gone"] for b in branches)
    channels = result.analysis.prunable_channels
    return "prunable channels", channels, channels - result.removed_channels


def freed(result: PruneResult) -> list[tuple[str, str]]:
    """What went because zeroed weights had made it useless."""
    found = result.plan.freed
    if not found.get("channels"):
        return []
    channels = output.plural(found["channels"], "channel")
    return [
        ("free wins", f"{channels} that nothing used any more, with {number(found['params'])} parameters")
    ]
