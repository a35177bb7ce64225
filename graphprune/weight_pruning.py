"""``prune`` for blocks and N:M patterns in one shot: scores -> decision -> zeros -> proof."""

from __future__ import annotations

import numpy as np

from graphprune.choosing import PruneOptions
from graphprune.criteria import block_scores, find_criterion, weight_scores
from graphprune.frontends.onnx import build_graph
from graphprune.models import Model
from graphprune.patterning import blocking_of, rows_of
from graphprune.pruning import Pruned
from graphprune.rows import plan_fields
from graphprune.zeroing import zero_weights


def prune_weights(source: Model, options: PruneOptions) -> Pruned:
    """Zero weights of ``source`` in blocks or N:M groups as ``options`` say, and prove the result.

    Raises BudgetError where the budget cannot be reached, OptionError for a criterion that scores channels
    only, FidelityError where the result does not equal the masked original.
    """
    criterion, rng = find_criterion(options.method), np.random.default_rng(options.seed)
    graph = build_graph(source.ir, options.input_shapes)
    if options.structure == "block":
        blocking = blocking_of(graph, options)
        keep = blocking.choose(block_scores(blocking, criterion, rng))
        masks, fields = blocking.masks(keep), blocking.plan_fields(keep)
        achieved, left = blocking.achieved(keep), blocking.dense
    else:
        rows = rows_of(graph, options)
        arrays = {r.name: np.asarray(r.weight.value.array(), np.float32) for r in rows}
        masks = {r.name: r.choose(weight_scores(arrays[r.name], criterion, rng)) for r in rows}
        fields = plan_fields(rows)
        achieved, left = 1 - sum(m.sum() for m in masks.values()) / sum(m.size for m in masks.values()), []
    return zero_weights(source, source.ir, masks, fields, options, float(achieved), dense=left)
