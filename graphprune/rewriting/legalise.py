"""``graphprune.rewrite``: what a target lacks is replaced by equal graphs, and proved equal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphprune.errors import OptionError, own_bug
from graphprune.models import Model, load, sizes_by_name
from graphprune.plan import plan_path
from graphprune.rewriting.engine import Left, rewrite_graph
from graphprune.rewriting.equality import Equality, compare_models
from graphprune.rewriting.registry import RewriteRule, all_rewrite_rules, find_rewrite_rule
from graphprune.sidecar import blocks_path
from graphprune.targets.target import Target, find_target
from graphprune.writing import save_model


@dataclass(eq=False)
class RewriteResult:
    """What ``rewrite`` returns: the model, what was done to it, and the proof, which holds.

    applied: rule -> how often. left: nodes that stay although the target lacks them or a rule that was asked
    for by name is meant for them, and why. lacking: those of ``left`` that the target lacks.
    """

    model: Model
    applied: dict[str, int]
    left: list[Left]
    lacking: list[Left]
    fidelity: Equality

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the model, whole or not at all; what ``prune`` wrote beside an older one goes.

        Raises OptionError where ``path`` exists, unless ``force``.
        """
        target = Path(path)
        gone = [plan_path(target), blocks_path(target)] if force else []
        return save_model(self.model.ir, target, force=force, gone=gone)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "model": self.model.name,
            "applied": self.applied,
            "left": [entry._asdict() for entry in self.left],
            "lacking": len(self.lacking),
            "fidelity": self.fidelity.to_dict(),
        }


def rewrite(
    source: Any,
    *,
    target: Target | str | os.PathLike[str] | None = None,
    rules: Sequence[str] = (),
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> RewriteResult:
    """Replace the operators that ``target`` lacks by equal graphs, and prove it in onnxruntime.

    A rule runs where the target lacks an operator that it replaces (for that operator only), where the
    target's ``rewrites`` name it, or where ``rules`` does (for all that it replaces). No replacement uses an
    operator that the target lacks. Sub-graphs are left alone. ``source`` itself is not changed.

    ``input_shapes``: input name -> sizes, for inputs with dynamic axes; the result takes inputs of these
    sizes only, but for the batch (axis 0).

    Raises OptionError for an unknown target or rule or none at all, ModelError for a model that cannot be
    read or run, FidelityError where the result does not equal the original, which would be a bug.
    """
    found = target if target is None or isinstance(target, Target) else find_target(Path(target))
    lacks = () if found is None else found.lacks
    named = [*(() if found is None else found.rewrites), *rules]
    chosen = _choose(lacks, named)
    if found is None and not rules:
        known = ", ".join(all_rewrite_rules())
        raise OptionError(f"nothing to do: give a target with --target, or rules with --rule ({known})")
    shapes = sizes_by_name(input_shapes)
    model = load(source)
    rewriting = rewrite_graph(model.ir, list(chosen), {r.name: o for r, o in chosen.items()}, lacks, shapes)
    _fix_sizes(rewriting.model, shapes)
    fidelity = compare_models(model.ir, rewriting.model, shapes)
    if not fidelity.holds:
        raise own_bug(fidelity.message)
    result = Model(rewriting.model, f"{model.name} (rewritten)", None, list(model.notes))
    lacking = [entry for entry in rewriting.left if entry.op in lacks]
    return RewriteResult(result, rewriting.applied, rewriting.left, lacking, fidelity)


def _choose(lacks: Sequence[str], named: Sequence[str]) -> dict[RewriteRule, tuple[str, ...]]:
    """Rules in the order in which they run, with the operators that each may replace."""
    asked = {find_rewrite_rule(name) for name in named}
    chosen = {
        rule: rule.replaces if rule in asked else tuple(op for op in rule.replaces if op in lacks)
        for rule in all_rewrite_rules().values()
    }
    return {rule: operators for rule, operators in chosen.items() if operators}


def _fix_sizes(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write the sizes that replacements were made for into the inputs; the batch stays dynamic."""
    for value in model.graph.inputs:
        sizes = shapes.get(value.name or "")
        if sizes is not None and value.shape is not None:
            value.shape = ir.Shape([value.shape[0], *sizes[1:]] if sizes else [])
