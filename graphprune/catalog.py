"""Every pruning method, whatever makes it: ``python -m graphprune.catalog`` prints the README's table."""

from __future__ import annotations

import sys
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graphprune.branches import methods as _  # noqa: F401 - registers them
from graphprune.branches.registry import all_branch_methods
from graphprune.calibration.criteria import all_data_criteria
from graphprune.criteria import Criterion, all_criteria
from graphprune.methods import all_trained


@dataclass(frozen=True)
class MethodInfo:
    """A method as ``graphprune methods`` lists it.

    kind: ``one shot`` decides from the weights as they are, ``calibrated`` runs inputs through onnxruntime and may
    refit what stays, ``trained`` trains masks and weights. structures: what
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
    """Every method of the registries, by kind and name."""
    branches = all_branch_methods()
    found = [
        MethodInfo(c.name, "one shot", _structures(c, branches), "none", c.summary.rstrip("."), c.citation)
        for c in all_criteria().values()
    ]
    found += [
        MethodInfo(d.name, "calibrated", d.structures, "inputs", d.summary, d.citation)
        for d in all_data_criteria().values()
    ]
    found += [
        MethodInfo(b.name, "one shot", ("branch",), "inputs" if b.looks else "none", b.summary, b.citation)
        for b in branches.values()
        if b.name not in all_criteria()
    ]
    found += [
        MethodInfo(
            t.name, "one shot" if t.one_shot else "trained", t.structures, t.data, t.summary, t.citation
        )
        for t in all_trained().values()
    ]
    return sorted(found, key=lambda m: (m.kind, m.name))


def _structures(criterion: Criterion, branches: Container[str]) -> tuple[str, ...]:
    """``branch`` too, where a method for branches has the same name."""
    return (*criterion.structures, "branch") if criterion.name in branches else criterion.structures


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
