"""Content -> the whole page: one HTML text with its style, its script and the chart library inside."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from string import Template

from graphprune.reporting.content import Content
from graphprune.reporting.markup import script_data, text
from graphprune.reporting.sections import PARTS, header

CHARTED = ("layers", "groups", "graph", "history", "curves", "sensitivity", "done")
"""What the script draws; the rest is in the page as markup."""

SCRIPTS = ("theme.js", "tables.js", "charts.js", "graph.js", "start.js")

_HEADING = re.compile(r'<h2 id="([\w-]+)-title">([^<]*)</h2>')


def page(content: Content) -> str:
    """One HTML text that needs nothing else. The same content gives the same text."""
    body = "".join(part(content) for part in PARTS)
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in _HEADING.findall(body))
    kind = "Pruning report" if content.get("done") else "Analysis"
    return Template(_packaged("page.html")).substitute(
        title=text(f"{content['title']}: {kind.lower()}"),
        model=text(content["title"]),
        kind=kind,
        header=header(content),
        links=links,
        body=body,
        style=_packaged("style.css"),
        data=script_data({key: content[key] for key in CHARTED if content.get(key)}),
        library=_packaged("vendor/echarts.common.min.js"),
        script="\n".join(_packaged(f"scripts/{name}") for name in SCRIPTS),
    )


@cache
def _packaged(name: str) -> str:
    return resources.files("graphprune.reporting").joinpath(name).read_text(encoding="utf-8")
