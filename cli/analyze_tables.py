"""The report of ``graphprune analyze`` for people."""

from __future__ import annotations

from typing import Any

from . import output, sensitivity
from .output import Column, number, percent, plural


def show(report: dict[str, Any], *, nodes: bool = False) -> None:
    """The report for people; ``report`` is what ``--json`` prints."""
    prunable = [g for g in report["groups"] if g["prunable"]]
    frozen = [g for g in report["groups"] if g["frozen_channels"]]
    _totals(report, prunable)
    if "patterns" in report:
        _patterns(report["patterns"])
        return
    if "branches" in report:
        _branches(report["branches"])
        return
    _groups(prunable)
    if "sensitivity" in report:
        sensitivity.show(report["sensitivity"])
    _frozen(frozen)
    _constraints(report["constraints"])
    if nodes:
        _nodes(report["nodes"])
    if not prunable:
        output.text("nothing in this model can be pruned by whole channels")


def _totals(report: dict[str, Any], prunable: list[dict[str, Any]]) -> None:
    params, macs = report["params"], report["macs"]
    coupled = sum(g["channels"] for g in prunable)
    share = percent(report["prunable_params"], params)
    output.facts(
        [
            ("model", f"{report['model']} (opset {report['opset']})"),
            (
                "inputs",
                ", ".join(f"{n} {'x'.join(map(str, s)) or 'scalar'}" for n, s in report["inputs"].items()),
            ),
            (
                "parameters",
                f"{number(params)}, of which {number(report['prunable_params'])} ({share}) prunable",
            ),
            ("MACs", number(macs)),
            (
                "channels",
                f"{report['prunable_channels']} filters prunable, as {coupled} coupled channels "
                f"in {plural(len(prunable), 'group')}",
            ),
        ]
    )


def _branches(branches: list[dict[str, Any]]) -> None:
    """Residual branches, in the order of the graph."""
    output.table(
        "Residual branches",
        [
            Column("sum", flexible=True),
            Column("branch", flexible=True),
            Column("shortcut"),
            Column("params", right=True),
            Column("MACs", right=True),
        ],
        [
            (
                b["node"],
                b["removed"],
                "computed" if b["projection"] else "identity",
                number(b["params"]),
                number(b["macs"]),
            )
            for b in branches
        ],
    )
    if not branches:
        output.text("this model has no residual branch that could go")


def _patterns(patterns: dict[str, Any]) -> None:
    """Blocks or N:M groups of every weight."""
    of_blocks = patterns["structure"] == "block"
    output.facts(
        [
            (
                "pattern",
                f"{patterns['block']} blocks" if of_blocks else f"{patterns['nm']} groups",
            ),
            (
                "reachable",
                f"{percent(patterns['reachable'], 1)} of {number(patterns['prunable_weights'])} weights",
            ),
        ]
    )
    extra = [Column("block"), Column("grid")] if of_blocks else [Column("axis", right=True)]
    last = [Column("edge waste", right=True)] if of_blocks else []
    output.table(
        "Blocks" if of_blocks else "N:M groups",
        [
            Column("weight", flexible=True),
            Column("node", flexible=True),
            Column("shape"),
            *extra,
            Column("count", right=True),
            Column("partial", right=True),
            *last,
        ],
        [_pattern(w, of_blocks) for w in patterns["weights"]],
    )
    if patterns["dense"]:
        output.text(f"left dense, too small: {', '.join(patterns['dense'])}")


def _pattern(w: dict[str, Any], of_blocks: bool) -> tuple[str, ...]:
    first = (w["name"], w["node"], _by(w["shape"]))
    if of_blocks:
        share = percent(w["edge_waste"], 1)
        return (*first, _by(w["block"]), _by(w["grid"]), str(w["blocks"]), str(w["partial"]), share)
    return (*first, str(w["axis"]), str(w["groups"]), str(w["partial"]))


def _by(sizes: list[int]) -> str:
    return "x".join(map(str, sizes))


def _groups(groups: list[dict[str, Any]]) -> None:
    output.table(
        "Prunable groups",
        [
            Column("id", right=True),
            Column("name", flexible=True),
            Column("channels", right=True),
            Column("params/ch", right=True),
            Column("MACs/ch", right=True),
            Column("members (tensor[axis])", flexible=True),
        ],
        [
            (
                str(g["id"]),
                g["name"],
                _channels(g),
                number(g["params_per_channel"]),
                number(g["macs_per_channel"]),
                _members(g["members"]),
            )
            for g in groups
        ],
    )


def _channels(group: dict[str, Any]) -> str:
    frozen = group["frozen_channels"]
    return f"{group['channels']} of {group['channels'] + frozen}" if frozen else str(group["channels"])


def _members(members: list[dict[str, Any]]) -> str:
    first = ", ".join(f"{m['tensor']}[{m['axis']}]" for m in members[:2])
    return f"{len(members)}: {first}" + (", ..." if len(members) > 2 else "")


def _frozen(groups: list[dict[str, Any]]) -> None:
    """Groups with channels that stay, gathered by reason."""
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_reason.setdefault(group["reason"], []).append(group)
    rows = []
    for reason, found in by_reason.items():
        names = ", ".join(g["name"] for g in found[:2]) + (", ..." if len(found) > 2 else "")
        rows.append((str(len(found)), str(sum(g["frozen_channels"] for g in found)), reason, names))
    output.table(
        "Frozen channels, by reason",
        [
            Column("groups", right=True),
            Column("channels", right=True),
            Column("reason", flexible=True),
            Column("where", flexible=True),
        ],
        sorted(rows, key=lambda row: -int(row[1])),
    )


def _constraints(constraints: list[dict[str, Any]]) -> None:
    output.table(
        "Constraints: rows that lose equally many channels",
        [
            Column("kind"),
            Column("rows", right=True),
            Column("groups", flexible=True),
            Column("nodes", flexible=True),
        ],
        [
            (c["kind"], str(c["rows"]), ", ".join(map(str, c["groups"])), ", ".join(c["nodes"]))
            for c in constraints
        ],
    )


def _nodes(nodes: list[dict[str, Any]]) -> None:
    output.table(
        "Nodes",
        [
            Column("name", flexible=True),
            Column("operator"),
            Column("params", right=True),
            Column("MACs", right=True),
            Column("frozen because", flexible=True),
        ],
        [
            (n["name"], n["op"], number(n["params"]), number(n["macs"]), n["frozen_reason"] or "")
            for n in nodes
        ],
    )
