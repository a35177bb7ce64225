"""``graphprune rewrite``: operators that an accelerator lacks become equal graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import completing, options, output, paths
from .output import Column, plural

if TYPE_CHECKING:
    from graphprune.rewriting.legalise import RewriteResult

RuleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="NAME",
        help="Apply this rule whatever the target lacks (a wrong name lists all). Repeatable.",
        autocompletion=completing.rules,
    ),
]


def rewrite(
    model: options.ModelArgument,
    target: options.TargetOption = None,
    rule: RuleOption = None,
    out: options.OutOption = None,
    input_shape: options.InputShapeOption = None,
    json: options.JsonOption = None,
    force: options.ForceOption = False,
) -> None:
    """Replace operators that an accelerator lacks by equal graphs, and prove that MODEL computes the same.

    Give a --target, or rules with --rule, or both. Rewrite first, then prune.

    Exit code 0: the target lacks nothing any more. 1: something that it lacks is left, and named (the file
    is written), or the proof fails (nothing is written). 2: unusable model, target or rule.

    \b
    Examples:
      graphprune rewrite model.onnx --target npu-16x8
      graphprune rewrite model.onnx --target npu-16x8 --input-shape input:1,3,512,1024 -o npu.onnx
      graphprune rewrite model.onnx --rule fold-batchnorm --rule channel-shuffle
    """
    shapes = options.input_shapes(input_shape)
    written = paths.default_output(model, ".rewritten.onnx") if out is None else out
    paths.check_json_target(json, model, written, force=force)
    from graphprune import api
    from graphprune.errors import OptionError
    from graphprune.rewriting import rewrite as run

    if paths.same_file(written, model):
        raise OptionError(f"{written} is the model itself: name another file with -o")
    paths.check_outputs(written, force=force)
    loaded = api.load(model)
    paths.check_weights(loaded.ir, written, *paths.named(json), force=force)
    result = run(loaded, target=target, rules=tuple(rule or ()), input_shapes=shapes)
    result.save(written, force=force)
    if json is not None:
        output.data({**result.to_dict(), "written": str(written)}, json)
    if json != "-":
        _show(result, written)
    for sentence in result.model.notes:
        output.note(sentence)
    if result.lacking:
        output.error(
            f"{plural(len(result.lacking), 'node')} of {model.name} are left that {target} lacks: "
            f"{', '.join(sorted({entry.op for entry in result.lacking}))}"
        )
        raise typer.Exit(1)


def _show(result: RewriteResult, written: Path) -> None:
    from graphprune.rewriting import find_rewrite_rule

    proof = result.fidelity
    output.facts(
        [
            ("written", str(written)),
            ("replaced", plural(sum(result.applied.values()), "node")),
            ("proof", ("VACUOUS: " if proof.vacuous else "holds: ") + proof.message),
            (
                "inputs",
                f"{plural(proof.runs, 'random input')}, {plural(len(proof.compared), 'value')} compared",
            ),
        ]
    )
    output.table(
        "Replaced",
        [Column("rule"), Column("nodes", right=True), Column("what", prose=True)],
        [(name, str(n), find_rewrite_rule(name).summary) for name, n in result.applied.items()],
    )
    output.table(
        "Left",
        [Column("node", flexible=True), Column("operator"), Column("why", prose=True)],
        [(entry.node, entry.op, entry.why) for entry in result.left],
    )
