"""Every pruning method, whatever makes it: ``python -m graphprune.catalog`` prints the README's table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graphprune.criteria import all_criteria
from graphprune.methods import all_trained


@dataclass(frozen=True)
class MethodInfo:
    """A method as ``graphprune methods`` lists it.

    kind: ``one shot`` decides from the weights as they are, ``trained`` trains masks and weights. structures: what
    it prunes. data: ``none``, ``inputs`` (unlabelled samples) or ``labels``.
    """

    name: str
    kind: str
    structures: Sequence[str]
    data: str
    summary: str
    citation: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)


def all_methods() -> list[MethodInfo]:
    """Every method of the registries, those in one shot first, by name."""
    found = [
        MethodInfo(c.name, "one shot", c.structures, "none", c.summary.rstrip("."), c.citation)
        for c in all_criteria().values()
    ]
    found += [
        MethodInfo(
            t.name, "one shot" if t.one_shot else "trained", t.structures, t.data, t.summary, t.citation
        )
        for t in all_trained().values()
    ]
    return sorted(found, key=lambda m: (m.kind, m.name))


def method_table() -> str:
    """One row for each method, as Markdown."""
    lines = [
        "| Method | Kind | Structures | Data | Score or masks | Source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for m in all_methods():
        cells = (f"`{m.name}`", m.kind, ", ".join(m.structures), m.data, m.summary, m.citation)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(method_table())
