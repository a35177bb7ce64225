"""Rule ``storage``: ways to store weights that the target's toolchain does not understand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphprune.targets.findings import FAIL, NOTE, Finding
from graphprune.targets.target import Target
from graphprune.targets.weights import ReadWeight

_TABLE = "Gather"
"""What takes blocks from a compact table."""


def unread_storage(weights: Iterable[ReadWeight], sparse: Iterable[str], target: Target) -> Iterator[Finding]:
    """Weights as sparse initializers (``sparse``: their names) or block tables that ``target`` cannot read."""
    advice = f"prune again with --format {target.format or target.reads[0]}"
    if "sparse-initializer" not in target.reads:
        sentence = f"{target.name} does not read sparse initializers"
        for name in sparse:
            yield Finding(FAIL, "storage", name, sentence, advice=advice)
    if "compact" in target.reads:
        return
    for weight in weights:
        made = ", ".join(sorted(weight.computed))
        if _TABLE in weight.computed:
            sentence = f"{target.name} reads weights as they are stored, not from a table of blocks"
            yield Finding(FAIL, "storage", weight.name, sentence, made, advice)
        elif weight.computed:
            sentence = "other operators compute the weight: its zeros count only if the toolchain folds them"
            yield Finding(NOTE, "storage", weight.name, sentence, made)
