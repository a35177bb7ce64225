"""Options -> the weights that a pattern is for, and how they are cut."""

from __future__ import annotations

from graphprune.blocking import Blocking
from graphprune.choosing import PruneOptions, check_patterns, is_selected, matches
from graphprune.contractions import ContractionWeight, contraction_weights
from graphprune.errors import BudgetError, OptionError
from graphprune.graph import Graph
from graphprune.notation import parse_block, parse_nm
from graphprune.rows import RowWeight, row_weights


def selected_weights(graph: Graph, options: PruneOptions) -> list[ContractionWeight]:
    """Weights of contractions that --only and --exclude leave. Raises OptionError, BudgetError."""
    found = contraction_weights(graph)
    if not found:
        raise BudgetError(f"nothing in this model can be pruned: {_why_nothing(graph)}")
    check_patterns([_names(w) for w in found], options)
    found = [w for w in found if is_selected(_names(w), options)]
    if not found:
        raise BudgetError("--only and --exclude leave nothing to prune: name other nodes")
    return found


def blocking_of(graph: Graph, options: PruneOptions) -> Blocking:
    """The blocks of a model under ``options``. Raises OptionError, BudgetError."""
    weights = selected_weights(graph, options)
    ratios = {w: share for p, share in options.ratios for w in weights if matches(_names(w), p)}
    return Blocking(
        weights,
        parse_block(options.block),
        options.budget.requested,
        most=options.max_layer_sparsity,
        allocation=options.allocation,
        ratios=ratios,
    )


def rows_of(graph: Graph, options: PruneOptions) -> list[RowWeight]:
    """The weights that take an N:M pattern under ``options``. Raises OptionError, BudgetError."""
    if options.ratios:
        raise OptionError("--ratio does not go with --structure nm: N:M fixes the share of every weight")
    keep, of = parse_nm(options.nm)
    return row_weights(selected_weights(graph, options), keep, of, options.nm_axis)


def _why_nothing(graph: Graph) -> str:
    if any(v.rank >= 2 and (v.dtype.startswith("int") or v.dtype.startswith("uint")) for v in graph.stored()):
        return (
            "blocks and N:M patterns are for floating-point weights: prune the model first, then quantise it"
        )
    return "no convolution or matrix product stores weights"


def _names(weight: ContractionWeight) -> list[str]:
    return [weight.node.name, weight.value.name]
