"""The tables of the page: operators, groups, and what else a plan or an analysis lists."""

from __future__ import annotations

from typing import Any

from graphprune.reporting.content import Content
from graphprune.reporting.figures import count, shape, share
from graphprune.reporting.markup import Cell, Column, section, table


def layers(content: Content) -> str:
    """Every operator."""
    rows = content.get("layers")
    if not rows:
        return ""
    pruned = bool(content.get("done"))
    drawn = {n["index"]: at for at, n in enumerate(content["graph"]["nodes"]) if n["index"] >= 0}
    columns = [
        Column("#", "number"),
        Column("name", "name"),
        Column("operator"),
        Column("shape", "shape"),
        *([Column("shape after", "shape")] if pruned else []),
        Column("parameters", "number"),
        *([Column("parameters after", "number")] if pruned else []),
        Column("MACs", "number"),
        *([Column("MACs after", "number"), Column("kept", "number")] if pruned else []),
        Column("group"),
        Column("stays because", "reason"),
    ]
    cells = [_layer(i + 1, row, pruned, drawn.get(row["index"])) for i, row in enumerate(rows)]
    return section(
        "All operators",
        "layers",
        table("Operators", columns, cells, "layers-table"),
    )


def _layer(number: int, row: dict[str, Any], pruned: bool, node: int | None) -> list[Cell]:
    params, macs = row["params"], row["macs"]
    groups = row["groups"]
    return [
        Cell(str(number), number),
        Cell(row["name"], node=node),
        Cell(row["op"]),
        Cell(shape(row["shape"])),
        *([Cell("removed" if row["shape_after"] is None else shape(row["shape_after"]))] if pruned else []),
        _number(params[0]),
        *([_number(params[1])] if pruned else []),
        _number(macs[0]),
        *([_number(macs[1]), _kept(row)] if pruned else []),
        Cell(", ".join(map(str, groups)), groups[0], group=groups[0]) if groups else Cell(""),
        Cell(row["reason"]),
    ]


def _number(value: int) -> Cell:
    """Most operators have neither parameters nor MACs: a dash is quieter than a column of zeros."""
    return Cell(count(value) if value else "-", value)


def _kept(row: dict[str, Any]) -> Cell:
    """The share of the parameters that stays; of an operator without any, of its channels."""
    before, after = row["params"] if row["params"][0] else (row["channels"] or [0, 0])
    return Cell(share(after, before), after / before if before else -1.0)


def groups(content: Content) -> str:
    """Every group of coupled channels."""
    rows = content.get("groups")
    if not rows:
        return ""
    pruned = bool(content.get("done"))
    columns = [
        Column("id", "number"),
        Column("name", "name"),
        Column("channels", "number"),
        *([Column("removed", "number"), Column("kept", "number")] if pruned else []),
        Column("parameters per channel", "number"),
        Column("MACs per channel", "number"),
        Column("tensor axes", "number"),
        Column("stays because", "reason"),
    ]
    cells = [
        [
            Cell(str(g["id"]), g["id"]),
            Cell(g["name"], group=g["id"]),
            Cell(count(g["channels"]), g["channels"]),
            *([Cell(count(g["removed"]), g["removed"]), _kept_of(g)] if pruned else []),
            Cell(f"{g['params_per_channel']:,.0f}", g["params_per_channel"]),
            Cell(f"{g['macs_per_channel']:,.0f}", g["macs_per_channel"]),
            Cell(str(len(g["members"])), len(g["members"])),
            Cell(g["reason"]),
        ]
        for g in rows
    ]
    return section("Groups", "groups", table("Groups of coupled channels", columns, cells, "groups-table"))


def _kept_of(group: dict[str, Any]) -> Cell:
    width = group["channels"] if group["prunable"] else 0
    return Cell(share(width - group["removed"], width), (width - group["removed"]) / width if width else -1.0)


def tensors(content: Content) -> str:
    """What a plan removes from every tensor, where nothing else is known."""
    rows = content.get("tensors")
    if not rows:
        return ""
    columns = [Column("tensor", "name"), Column("axis", "number"), Column("removed", "number")]
    cells = [
        [Cell(r["tensor"]), Cell(str(r["axis"]), r["axis"]), Cell(count(r["removed"]), r["removed"])]
        for r in rows
    ]
    return section("Removed", "tensors", table("Removed from every tensor", columns, cells, "tensors-table"))


def branches(content: Content) -> str:
    """Residual branches."""
    rows = content.get("branches")
    if not rows:
        return ""
    sized = "params" in rows[0]
    columns = [
        *(Column("sum", "name"), Column("branch", "name")),
        *([Column("parameters", "number"), Column("MACs", "number")] if sized else []),
        Column("removed"),
    ]
    cells = [
        [
            *(Cell(b["node"]), Cell(b["removed"])),
            *([Cell(count(b["params"]), b["params"]), Cell(count(b["macs"]), b["macs"])] if sized else []),
            Cell("yes" if b.get("gone") else "no"),
        ]
        for b in rows
    ]
    return section(
        "Residual branches", "branches", table("Residual branches", columns, cells, "branches-table")
    )


def patterns(content: Content) -> str:
    """Blocks or N:M groups of every weight, of an analysis."""
    found = content.get("patterns")
    if not found:
        return ""
    blocks = found["structure"] == "block"
    counted = "blocks" if blocks else "groups"
    columns = [
        Column("weight", "name"),
        Column("node", "name"),
        Column("shape", "shape"),
        Column(counted, "number"),
        Column("partial", "number"),
    ]
    rows = [
        [
            *(Cell(w["name"]), Cell(w["node"]), Cell(shape(w["shape"]))),
            *(Cell(count(w[counted]), w[counted]), Cell(count(w["partial"]), w["partial"])),
        ]
        for w in found["weights"]
    ]
    title = f"Blocks of {found['block']}" if blocks else f"Patterns of {found['nm']}"
    most, weights = share(found["reachable"], 1), count(found["prunable_weights"])
    reach = f"<p>At most {most} of {weights} weights can be zeroed.</p>"
    return section(title, "patterns", reach + table(title, columns, rows, "patterns-table"))
