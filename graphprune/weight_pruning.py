"""``prune`` for blocks and N:M patterns in one shot: scores -> decision -> zeros -> proof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphprune.blocking import Blocking
from graphprune.choosing import PruneOptions
from graphprune.criteria import block_scores, find_criterion, weight_scores
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph
from graphprune.models import Model
from graphprune.patterning import blocking_of, rows_of
from graphprune.pruning import Pruned
from graphprune.rows import RowWeight, plan_fields
from graphprune.slabs import slabs
from graphprune.zeroing import WeightDecision, zero_weights


@dataclass(frozen=True, eq=False)
class Scores:
    """How much units of a weight matter."""

    blocks: Callable[[Blocking], np.ndarray]
    """Float ``[blocks]``, over all blocks of all weights."""
    weights: Callable[[str, np.ndarray, slice], np.ndarray]
    """Of a part of axis 0 of a weight by name and array: every element by itself, the part's shape."""


def prune_weights(source: Model, options: PruneOptions) -> Pruned:
    """Zero weights of ``source`` in blocks or N:M groups as ``options`` say, and prove the result.

    Raises BudgetError where the budget cannot be reached, OptionError for a criterion that scores channels
    only, FidelityError where the result does not equal the masked original.
    """
    decision = decide_weights(build_graph(source.ir, options.input_shapes), options, scores_of(options))
    return zero_weights(source, source.ir, decision, options)


def scores_of(options: PruneOptions) -> Scores:
    """From weights alone, as ``options.method`` says."""
    criterion, rng = find_criterion(options.method), np.random.default_rng(options.seed)
    return Scores(
        lambda blocking: block_scores(blocking, criterion, rng),
        lambda name, array, part: weight_scores(np.asarray(array[part], np.float32), criterion, rng),
    )


def decide_weights(graph: Graph, options: PruneOptions, scores: Scores) -> WeightDecision:
    """Choose the blocks or the weights of N:M groups. Raises BudgetError, OptionError."""
    if options.structure == "block":
        blocking = blocking_of(graph, options)
        keep = blocking.choose(scores.blocks(blocking))
        return WeightDecision(
            blocking.masks(keep), blocking.plan_fields(keep), float(blocking.achieved(keep)), blocking.dense
        )
    rows = rows_of(graph, options)
    masks = {r.name: _mask(r, scores) for r in rows}
    gone = 1 - sum(m.sum() for m in masks.values()) / sum(m.size for m in masks.values())
    return WeightDecision(masks, plan_fields(rows), float(gone), [])


def _mask(row: RowWeight, scores: Scores) -> np.ndarray:
    """Which weights of ``row`` stay: bool of its shape."""
    array = row.weight.value.array()
    mask = np.empty(array.shape, bool)
    for part in slabs(array.shape, row.of):
        mask[part] = row.choose(scores.weights(row.name, array, part))
    return mask
