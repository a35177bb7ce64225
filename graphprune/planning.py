"""A decision -> the plan: indices removed per tensor, gates, kept-only operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphprune.coupling import Coupling
from graphprune.edits import Kept
from graphprune.plan import Indices, Plan
from graphprune.sizes import Surgery
from graphprune.surgery import changed_slices


def describe(coupling: Coupling, alive: np.ndarray, surgery: Surgery, **fields: Any) -> Plan:
    """Fill a Plan with what ``alive`` (bool ``[components]``) removes; ``fields`` go in as they are."""
    kept = coupling.kept(alive)
    summed = coupling.coupler.summed
    removed: dict[str, dict[str, Indices]] = {}
    contracted: dict[str, list[int]] = {}
    for tensor, slices in changed_slices(coupling, kept).items():
        for s in slices:
            indices: Indices = _gone(kept, s.ids) if s.rows == 1 else [_gone(kept, row) for row in s.ids]
            removed.setdefault(tensor.name, {})[str(s.axis)] = indices
            if summed[s.ids].any():
                contracted.setdefault(tensor.name, []).append(s.axis)
    gates: dict[str, dict[str, list[int]]] = {}
    for gate in coupling.coupler.gates:
        if kept.changed(gate.ids):
            gates.setdefault(gate.value.name, {})[str(gate.axis)] = _gone(kept, gate.ids)
    kept_only: dict[str, dict[str, list[int]]] = {}
    for mixing in coupling.coupler.mixings:
        if kept.changed(mixing.ids):
            kept_only.setdefault(mixing.node.name, {})[str(mixing.axis)] = _gone(kept, mixing.ids)
    return Plan(
        removed=removed,
        contracted=contracted,
        gates=gates,
        kept_only=kept_only,
        renamed=dict(surgery.renamed),
        added=dict(surgery.added),
        **fields,
    )


def _gone(kept: Kept, ids: np.ndarray) -> list[int]:
    """Positions of a label vector that go."""
    return [int(i) for i in np.flatnonzero(~kept.mask(ids))]
