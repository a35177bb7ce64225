"""``analyze --structure block|nm``: what a pattern would find in each weight."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphprune.blocking import BlockedWeight
from graphprune.choosing import PruneOptions
from graphprune.contractions import contraction_weights
from graphprune.graph import Graph
from graphprune.patterning import blocking_of, rows_of
from graphprune.rows import RowWeight


def pattern_report(graph: Graph, options: PruneOptions) -> dict[str, Any]:
    """The JSON object ``patterns`` of ``analyze``; field by field in the README.

    Raises BudgetError where no weight takes the pattern, OptionError for a pattern that is not understood.
    """
    return _blocks(graph, options) if options.structure == "block" else _rows(graph, options)


def _blocks(graph: Graph, options: PruneOptions) -> dict[str, Any]:
    blocking = blocking_of(graph, options)
    floors = blocking.floors(np.zeros(blocking.size))
    return {
        "structure": "block",
        "block": options.block,
        "weights": [_blocked(b) for b in blocking.blocked],
        "dense": blocking.dense,
        "prunable_weights": int(blocking.total),
        "reachable": round(blocking.achieved(floors), 4),
    }


def _blocked(b: BlockedWeight) -> dict[str, Any]:
    padded = b.count * math.prod(b.block)
    size = math.prod(b.weight.shape)
    return {
        "name": b.weight.value.name,
        "node": b.weight.node.name,
        "shape": list(b.weight.shape),
        "block": list(b.block),
        "grid": list(b.grid),
        "blocks": b.count,
        "partial": int((b.sizes() < math.prod(b.block)).sum()),
        "edge_waste": round(1 - size / padded, 4),
    }


def _rows(graph: Graph, options: PruneOptions) -> dict[str, Any]:
    rows = rows_of(graph, options)
    taken = {r.name for r in rows}
    kept, total = sum(_kept(r) for r in rows), sum(math.prod(r.weight.shape) for r in rows)
    return {
        "structure": "nm",
        "nm": options.nm,
        "weights": [_row(r) for r in rows],
        "dense": [w.value.name for w in contraction_weights(graph) if w.value.name not in taken],
        "prunable_weights": total,
        "reachable": round(1 - kept / total, 4),
    }


def _row(r: RowWeight) -> dict[str, Any]:
    positions = r.weight.shape[r.axis]
    lines = math.prod(r.weight.shape) // positions
    return {
        "name": r.name,
        "node": r.weight.node.name,
        "shape": list(r.weight.shape),
        "axis": r.axis,
        "groups": lines * -(-positions // r.of),
        "partial": lines if positions % r.of else 0,
    }


def _kept(r: RowWeight) -> int:
    """Weights that stay: groups that are short of positions keep no more than they have."""
    positions = r.weight.shape[r.axis]
    whole, rest = divmod(positions, r.of)
    return math.prod(r.weight.shape) // positions * (whole * r.keep + min(rest, r.keep))
