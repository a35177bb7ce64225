"""``graphprune check``: does a file, as it is written, fit an accelerator?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from . import options, output, paths
from .output import Column, plural

if TYPE_CHECKING:
    from graphprune.targets.findings import CheckReport, Finding

FAILED = 1


def check(
    model: options.ModelArgument,
    target: options.RequiredTarget,
    json: options.JsonOption = None,
    input_shape: options.InputShapeOption = None,
    force: options.ForceOption = False,
) -> None:
    """Say whether MODEL, as it is written, fits an accelerator: operators, channel counts, zeros, storage.

    Zeros are counted in the written numbers. The file's metadata and the plan beside it only say which weights
    are meant to be sparse.

    Exit code 0: it fits. 1: it does not. 2: there is no usable model or target.

    \b
    Examples:
      graphprune check model.onnx --target npu-16x8
      graphprune check model.pruned.onnx --target tensorrt-2to4 --json -
      graphprune check model.onnx --target my-chip.toml
    """
    shapes = options.input_shapes(input_shape)
    described = [Path(target)] if target.endswith(".toml") else []
    paths.check_json_target(json, model, *described, force=force)
    from graphprune import api
    from graphprune.targets.checking import check as compare

    loaded = api.load(model)
    paths.check_unread(loaded.ir, *paths.named(json))
    report = compare(loaded, target, input_shapes=shapes)
    if json is not None:
        output.data(report.to_dict(), json)
    if json != "-":
        show(report)
    if not report.ok:
        raise typer.Exit(FAILED)


def show(report: CheckReport) -> None:
    """The report for people: every failure, and notes gathered by what they say."""
    verdict = f"does not fit: {plural(len(report.failures), 'failure')}" if report.failures else "fits"
    output.facts([("model", report.model), ("target", report.target), ("verdict", verdict)])
    output.table(
        "What does not fit",
        [
            Column("name", flexible=True),
            Column("rule"),
            Column("what", prose=True),
            Column("detail"),
            Column("what to do", prose=True),
        ],
        [(f.name or "-", f.rule, f.sentence, f.detail, f.advice) for f in report.failures],
    )
    output.table(
        "Notes",
        [Column("rule"), Column("what", prose=True), Column("where", flexible=True)],
        _gathered(report.notes),
    )


def _gathered(notes: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    """Notes of one rule that begin alike, with the first names that they are about; --json has them all."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for note in notes:
        found.setdefault((note.rule, note.sentence), []).append(note)
    return [
        (rule, sentence if len(same) > 1 else same[0].text, _names([f.name for f in same if f.name]))
        for (rule, sentence), same in found.items()
    ]


def _names(names: list[str]) -> str:
    first = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
    return first if len(names) < 2 else f"{len(names)}: {first}"
