"""``prune`` for blocks and N:M patterns in one shot: scores -> decision -> zeros -> proof."""

from __future__ import annotations

import numpy as np

from graphprune.blocking import Importance
from graphprune.choosing import PruneOptions
from graphprune.criteria import find_criterion
from graphprune.errors import OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Value
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
    importance = _importance(options)
    graph = build_graph(source.ir, options.input_shapes)
    if options.structure == "block":
        blocking = blocking_of(graph, options)
        keep = blocking.choose(blocking.importances(Value.array, importance))
        masks, fields = blocking.masks(keep), blocking.plan_fields(keep)
        achieved, left = blocking.achieved(keep), blocking.dense
    else:
        rows = rows_of(graph, options)
        masks = {r.name: r.choose(importance(_data(r.weight.value))) for r in rows}
        fields = plan_fields(rows)
        achieved, left = 1 - sum(m.sum() for m in masks.values()) / sum(m.size for m in masks.values()), []
    return zero_weights(source, source.ir, masks, fields, options, float(achieved), dense=left)


def _importance(options: PruneOptions) -> Importance:
    criterion = find_criterion(options.method)
    score = criterion.weights
    if score is None:
        raise OptionError(
            f"--method {options.method} scores whole channels: with --structure {options.structure} use magnitude"
        )
    rng = np.random.default_rng(options.seed)
    return lambda w: score(w, rng)


def _data(value: Value) -> np.ndarray:
    return np.asarray(value.array()).astype(np.float64)
