"""The parts of the page, each from what the content says; a part without content is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphprune.reporting.content import Content
from graphprune.reporting.figures import count, plural, shape, share
from graphprune.reporting.markup import Cell, Column, element, facts, section, table, text
from graphprune.reporting.tables import branches, groups, layers, patterns, tensors

Part = Callable[[Content], str]


def header(content: Content) -> str:
    """What it is about."""
    pairs = []
    if "inputs" in content:
        inputs = ", ".join(f"{name} {shape(sizes)}" for name, sizes in content["inputs"].items())
        pairs.append(("inputs", f"{inputs} (opset {content['opset']})"))
    done = content.get("done")
    if done:
        pattern = f", {done['pattern']}" if done["pattern"] else ""
        pairs.append(("method", f"{done['method']} ({done['structure']}{pattern})"))
        budget = done["budget"]
        if budget:
            pairs.append(
                (
                    "budget",
                    f"{budget['kind']} {budget['requested']:g} requested, {budget['achieved']:.4f} achieved",
                )
            )
        pairs.append(("weights", done["weights"]))
        if done["freed"].get("channels"):
            went = plural(done["freed"]["channels"], "channel")
            pairs.append(
                (
                    "free wins",
                    f"{went} that nothing used any more, {count(done['freed']['params'])} parameters",
                )
            )
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in content["notes"])
    return facts(pairs) + notes


def totals(content: Content) -> str:
    """Before and after."""
    rows = content["totals"]
    cards = "".join(_card(row) for row in rows) + "".join(
        _metric(when, value) for when, value in content["metrics"].items()
    )
    return section("Totals", "totals", f'<div class="cards">{cards}</div>') if cards else ""


def _card(row: dict[str, Any]) -> str:
    before, after = row["before"], row["after"]
    if after is None:
        inner = f"<strong>{count(before)}</strong>"
    else:
        kept = after / before if before else 1.0
        inner = (
            f'<strong>{count(after)}</strong> <span class="was">of {count(before)}</span>'
            f'<span class="bar" role="img" aria-label="{share(after, before)} kept">'
            f'<span style="width:{100 * kept:.2f}%"></span></span>'
            f'<span class="was">{share(before - after, before)} removed</span>'
        )
    return f'<div class="card"><h3>{text(row["name"])}</h3>{inner}</div>'


def _metric(when: str, value: float | None) -> str:
    if value is None:
        said = "not finite"
    else:
        said = f"{100 * value:.2f} %" if 0 <= value <= 1 else f"{value:g}"
    return f'<div class="card"><h3>metric {text(when)}</h3><strong>{said}</strong></div>'


def charts(content: Content) -> str:
    """Kept and removed, layer by layer."""
    made = [row for row in content.get("layers", ()) if row["channels"]]
    if not made:
        return ""
    done = content.get("done")
    title = "Layers: kept and removed" if done else "Layers"
    by_channels = ""
    if not done or any(row["channels"][1] < row["channels"][0] for row in made):
        by_channels = _chart("channels-chart", "Output channels of every layer that makes channels")
    by_params = _chart("params-chart", "Parameters of every layer that makes channels")
    return section(title, "layers-charts", by_channels + by_params)


def search(content: Content) -> str:
    """What a training or a method left to be plotted."""
    drawn = ""
    if content["history"]:
        drawn += _chart("loss-chart", "Loss against step") + _chart(
            "masks-chart", "Undecided masks, share of the cost kept and its target against step"
        )
        if any(content["history"]["temperature"]):
            drawn += _chart("temperature-chart", "Temperature against step, logarithmic")
    if content["curves"]:
        drawn += _chart("curves-chart", "What the method recorded, step by step")
    return section("Search", "search", drawn) if drawn else ""


def sensitivity(content: Content) -> str:
    """What pruning each group alone costs."""
    found = content.get("sensitivity")
    if not found:
        return ""
    values = [v for g in found["groups"] for v in g["values"] if v is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    good = found["metric"] == "accuracy"

    def tint(value: float) -> float:
        part = (value - low) / (high - low) if high > low else 0.0
        return 1 - part if good else part

    columns = [
        Column("group", "name"),
        *(Column(f"{100 * r:g} % removed", "number") for r in found["ratios"]),
    ]
    rows = [
        [
            Cell(g["name"], group=g["group"]),
            *(Cell("-") if v is None else Cell(f"{v:.4g}", v, tint(v)) for v in g["values"]),
        ]
        for g in found["groups"]
    ]
    said = f"<p>{text(found['metric'])} after each group alone was pruned; stronger colour: more is lost.</p>"
    return section(
        "Sensitivity",
        "sensitivity",
        said
        + _chart("sensitivity-chart", f"{found['metric']} against the share removed from one group")
        + table("Sensitivity of groups", columns, rows, "sensitivity-table"),
    )


def graph(content: Content) -> str:
    """The coupling graph and what is selected in it."""
    drawn = content.get("graph")
    if not drawn or not drawn["nodes"]:
        return ""
    of = "operators" if drawn["level"] == "operators" else "groups (the model has too many operators to draw)"
    inner = (
        f"<p>{plural(len(drawn['nodes']), 'node')}: {of}. One colour for each group of coupled channels; grey: not "
        "prunable. Click a node or search; drag to move, Ctrl and the wheel to zoom.</p>"
        '<div class="tools"><label>Find <input id="find" type="search" list="node-names" autocomplete="off" '
        'placeholder="node name"></label><datalist id="node-names"></datalist>'
        '<span class="buttons"><button type="button" id="zoom-in" aria-label="Zoom in">+</button>'
        '<button type="button" id="zoom-out" aria-label="Zoom out">&minus;</button>'
        '<button type="button" id="fit">Fit</button><button type="button" id="clear">Clear</button></span></div>'
        '<div class="graph"><div id="graph-chart" class="chart" role="img" aria-label="Coupling graph; the tables '
        'below list the same nodes and groups"></div>'
        '<aside id="panel" aria-live="polite"><p>Nothing is selected.</p></aside></div>'
    )
    return section("Coupling graph", "graph", inner)


def proof(content: Content) -> str:
    """Whether the result is what it should be."""
    found = content.get("fidelity")
    if not found:
        return ""
    holds = found.get("holds", False) and not found.get("vacuous", False)
    worst, tolerance = found.get("max_rel_diff"), found.get("tolerance")
    distance = found.get("distance_to_original")
    nodes = ", ".join(found.get("nodes", ()))
    pairs = [
        ("verdict", str(found.get("message", ""))),
        ("max relative difference", "not finite" if worst is None else f"{worst:.2e}"),
        ("tolerance", "" if tolerance is None else f"{tolerance:.0e}"),
        ("random inputs", str(found.get("runs", ""))),
        ("values compared", count(len(found.get("compared", ())))),
        ("exact", "yes" if found.get("exact") else f"no: statistics over the kept channels in {nodes}"),
        (
            "distance to the original",
            "" if distance is None else f"{distance:.3g} (says nothing about accuracy)",
        ),
    ]
    if found.get("patterned"):
        pairs.append(("zeros counted in", plural(found["patterned"], "weight")))
    badge = element("p", "holds" if holds else "does not hold", class_="badge good" if holds else "badge bad")
    return section("Proof: pruned = masked original", "proof", badge + facts(pairs))


def recipe(content: Content) -> str:
    """How to get the same again."""
    done = content.get("done")
    if not done:
        return ""
    said = [("source_sha256", done["source_sha256"]), ("seed", str(done["seed"]))]
    for name in ("calibration", "analysis"):
        said += [(key.replace("_", " "), _plain(value)) for key, value in sorted(done[name].items())]
    written = f"<pre>{text(content['recipe'])}</pre>" if content["recipe"] else ""
    return section("Recipe and options", "recipe", facts(said) + written)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {shape(v) if isinstance(v, list) else v}" for k, v in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _chart(name: str, title: str) -> str:
    drawn = element("div", "", id=name, class_="chart", role="img", aria_label=title)
    return element("figure", element("figcaption", text(title)) + drawn)


PARTS: tuple[Part, ...] = (
    *(totals, charts, search, sensitivity, graph, groups),
    *(layers, tensors, branches, patterns, proof, recipe),
)
"""In the order of the page."""
