"""Content -> the whole page: one HTML text with its style, its script and the chart library inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from string import Template

from graphprune.reporting.content import Content
from graphprune.reporting.markup import script_data, text
from graphprune.reporting.sections import PARTS, header

CHARTED = ("layers", "groups", "graph", "history", "curves", "sensitivity", "done")
"""What the script draws; the rest is in the page as markup."""

SCRIPTS = ("theme.js", "tables.js", "charts.js", "graph.js", "start.js")
TABLE_SCRIPTS = ("theme.js", "tables.js", "start_tables.js")

CREDIT = " Charts: Apache ECharts (Apache License 2.0), inside this file; nothing is loaded from a network."

_HEADING = re.compile(r'<h2 id="([\w-]+)-title">([^<]*)</h2>')


def page(content: Content) -> str:
    """One HTML text that needs nothing else. The same content gives the same text."""
    return document(
        "Pruning report" if content.get("done") else "Analysis",
        content["title"],
        header(content),
        "".join(part(content) for part in PARTS),
        data={key: content[key] for key in CHARTED if content.get(key)},
        library=_packaged("vendor/echarts.common.min.js"),
        scripts=SCRIPTS,
    )


def document(
    kind: str,
    title: str,
    top: str,
    body: str,
    *,
    data: Content | None = None,
    library: str = "",
    scripts: Sequence[str] = TABLE_SCRIPTS,
) -> str:
    """A page of markup ``top`` and ``body``; ``kind`` and ``title`` are plain texts. Without ``library`` no charts."""
    links = "".join(f'<a href="#{name}">{found}</a>' for name, found in _HEADING.findall(body))
    return Template(_packaged("page.html")).substitute(
        title=text(f"{title}: {kind.lower()}"),
        model=text(title),
        kind=text(kind),
        header=top,
        links=links,
        body=body,
        style=_packaged("style.css"),
        data=script_data(data or {}),
        credit=CREDIT if library else "",
        library=library,
        script="\n".join(_packaged(f"scripts/{name}") for name in scripts),
    )


@cache
def _packaged(name: str) -> str:
    return resources.files("graphprune.reporting").joinpath(name).read_text(encoding="utf-8")
