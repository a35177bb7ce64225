"""``graphprune methods``: what can decide, on which structures, with which data."""

from __future__ import annotations

import json as json_text

from . import options, output
from .output import Column


def methods(json: options.JsonOption = None) -> None:
    """List the pruning methods: what they prune, the data they need, and where they were published.

    \b
    Examples:
      graphprune methods
      graphprune methods --json - | jq '.[].name'
    """
    from graphprune.catalog import all_methods

    found = all_methods()
    if json is not None:
        output.data(json_text.dumps([m.to_dict() for m in found], indent=1) + "\n", json)
    if json == "-":
        return
    output.table(
        "Methods",
        [
            Column("method"),
            Column("kind"),
            Column("structures"),
            Column("data"),
            Column("score or masks", prose=True),
            Column("source", prose=True),
        ],
        [(m.name, m.kind, ", ".join(m.structures), m.data, m.summary, m.citation) for m in found],
    )
