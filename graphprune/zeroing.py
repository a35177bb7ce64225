"""Weights zeroed by blocks or N:M patterns: the file, its plan, and the proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from graphprune.choosing import PruneOptions
from graphprune.errors import FidelityError
from graphprune.models import Model
from graphprune.plan import Plan
from graphprune.proof import verify_models
from graphprune.pruning import Pruned, analyze
from graphprune.writeback import stored_arrays, with_tensors


def zero_weights(
    source: Model,
    weighted: ir.Model,
    masks: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    options: PruneOptions,
    achieved: float,
) -> Pruned:
    """Zero what ``masks`` (tensor name -> bool) drop in ``weighted``, and prove the result.

    ``fields`` of the plan describe the pattern. Raises FidelityError.
    """
    arrays = stored_arrays(weighted, masks)
    zeroed = with_tensors(weighted, {name: arrays[name] * mask for name, mask in masks.items()})
    analysis = analyze(weighted, source.name, options, source.notes)
    total = analysis.cost.total_params
    gone = sum(int(m.size - np.count_nonzero(m)) for m in masks.values())
    macs = analysis.cost.total_macs
    plan = Plan(
        source_sha256=source.sha256(),
        method=options.method,
        seed=options.seed,
        weights="original" if weighted is source.ir else "trained",
        budget={"kind": "sparsity", "requested": options.budget.requested, "achieved": achieved},
        params={"before": total, "after": total - gone},
        macs={"before": macs, "after": macs},
        **fields,
    )
    fidelity = verify_models(source.ir, zeroed, plan, input_shapes=options.input_shapes)
    plan.fidelity = fidelity.to_dict()
    if not fidelity.holds:
        raise FidelityError(
            f"{fidelity.message}: this is a bug in graphprune, nothing was written, please report it"
        )
    return Pruned(zeroed, plan, fidelity, analysis, 0)
