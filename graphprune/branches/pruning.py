"""``prune`` for whole residual branches: find -> choose -> surgery -> proof."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.branches import methods as _  # noqa: F401 - registers them
from graphprune.branches.registry import BranchMethod, Question, find_method
from graphprune.branches.removal import Removal
from graphprune.branches.surgery import remove_branches
from graphprune.choosing import PruneOptions, check_patterns, is_selected
from graphprune.errors import GraphpruneError, OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph, Node
from graphprune.models import Model
from graphprune.open_sizes import other_batch, other_sizes
from graphprune.plan import Plan
from graphprune.pruning import Pruned, analyze, prove
from graphprune.residuals import Branch, find_branches
from graphprune.running import Feed


def prune_branches(source: Model, options: PruneOptions, feeds: Sequence[Feed] | None = None) -> Pruned:
    """Remove whole residual branches of ``source`` under the budget, and prove the result.

    The budget is a share of the branches (``sparsity``; those inside a removed one count as removed), or of the
    whole model's parameters or MACs. Branches are large, so that it is met as nearly as one branch allows: methods
    that take one after another stay within it and pass over what does not fit, then take the one branch more that
    overshoots least, if that is nearer; ``branch-knapsack`` reaches at least the budget, with no branch that could
    stay. ``feeds``: inputs for methods that look at them.

    Raises BudgetError where the branches hold too little, OptionError for options that match nothing or a method
    without the data that it needs, FidelityError where the result does not equal the masked original.
    """
    method = find_method(options.method)
    _check(method, options, feeds)
    analysis = analyze(source.ir, source.name, options, source.notes)
    found, macs = branches_of(source, analysis)
    branches = _selected(found, options)
    removal = Removal(analysis.graph, branches, macs, options.budget)
    removal.check_reachable()
    chosen = method.choose(Question(source.ir, removal, list(feeds or ())))
    pruned = cut_branches(source, analysis, removal, chosen, options)
    pruned.analysis.notes += _notes(method, [branches[i] for i in removal.outermost(chosen)])
    return pruned


def cut_branches(
    source: Model, analysis: Analysis, removal: Removal, chosen: Collection[int], options: PruneOptions
) -> Pruned:
    """Remove the ``chosen`` of the branches and prove the result. Raises FidelityError."""
    gone = [removal.branches[i] for i in removal.outermost(chosen)]
    small = remove_branches(source.ir, gone)
    plan = Plan(
        source_sha256=source.sha256(),
        structure="branch",
        method=options.method,
        seed=options.seed,
        analysis=options.reading(),
        budget={
            "kind": options.budget.kind,
            "requested": options.budget.requested,
            "achieved": removal.share(chosen),
        },
        branches=[b.plan_entry() for b in gone],
        added=_added(source.ir, small),
        params={"before": removal.total_params, "after": removal.total_params - removal.params(chosen)},
        macs={"before": removal.total_macs, "after": removal.total_macs - removal.macs(chosen)},
    )
    fidelity = prove(source.ir, small, plan, options)
    analysis.branches = branch_rows(
        removal.branches, {removal.branches[i].value for i in removal.gone(chosen)}
    )
    return Pruned(small, plan, fidelity, analysis, 0)


def branches_of(source: Model, analysis: Analysis) -> tuple[list[Branch], dict[Node, int]]:
    """The residual branches of an analysed model, and the MACs of its nodes."""
    macs = analysis.cost.macs_by_node(analysis.everything)
    return find_branches(analysis.graph, macs, _at_other_sizes(source.ir, analysis.graph)), macs


def analyze_branches(source: Model, analysis: Analysis) -> list[dict[str, Any]]:
    """Every residual branch of an analysed model, as ``Analysis.branches`` holds them."""
    return branch_rows(branches_of(source, analysis)[0])


def branch_rows(branches: Sequence[Branch], gone: set[str] | None = None) -> list[dict[str, Any]]:
    """One JSON object for each branch; ``gone``: names of the sums of those that were removed."""
    return [
        {
            **b.plan_entry(),
            "params": b.params,
            "macs": b.macs,
            "projection": b.projection,
            **({} if gone is None else {"gone": b.value in gone}),
        }
        for b in branches
    ]


def _check(method: BranchMethod, options: PruneOptions, feeds: Sequence[Feed] | None) -> None:
    if options.ratios:
        raise OptionError(
            "--ratio does not go with --structure branch: a branch goes as a whole; use --exclude"
        )
    if method.looks and not feeds:
        raise OptionError(f"--method {method.name} needs inputs: give it --data (labels are not needed)")


def _selected(branches: Sequence[Branch], options: PruneOptions) -> list[Branch]:
    """Those that --only and --exclude leave: by names of the sum, of the branch's nodes and of its weights."""
    names = [_names(b) for b in branches]
    check_patterns(names, options)
    return [b for b, own in zip(branches, names, strict=True) if is_selected(own, options)]


def _names(branch: Branch) -> list[str]:
    stored = {v.name for n in branch.nodes for v in n.inputs if v is not None and v.stored}
    return [branch.add.name, branch.value, *(n.name for n in branch.nodes), *sorted(stored)]


def _at_other_sizes(model: ir.Model, graph: Graph) -> list[Graph]:
    """The model at other sizes of its open axes, as far as it accepts them."""
    found = []
    for shapes in (other_batch(graph), other_sizes(graph)) if graph.open_axes else ():
        try:
            found.append(build_graph(model, shapes))
        except GraphpruneError:
            continue
    return found


def _added(before: ir.Model, after: ir.Model) -> dict[str, str]:
    """Identities that keep names apart."""
    old = {n.name for n in before.graph}
    new = [n for n in after.graph if n.name not in old and n.op_type == "Identity"]
    return {n.name or "": f"the shortcut in the place of the sum {n.outputs[0].name!r}" for n in new}


def _notes(method: BranchMethod, gone: Sequence[Branch]) -> list[str]:
    notes = [method.note] if method.note else []
    projections = sum(b.projection for b in gone)
    if projections:
        notes.append(
            f"{projections} of the removed branches stood beside another computed operand (a projection shortcut): "
            "the one with fewer parameters stays"
        )
    return notes
