"""A decision -> the plan: indices removed per tensor, gates, kept-only operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphprune.coupling import Coupling
from graphprune.plan import Indices, Plan
from graphprune.surgery import Surgery, changed_slices


def describe(coupling: Coupling, alive: np.ndarray, surgery: Surgery, **fields: Any) -> Plan:
    """Fill a Plan with what ``alive`` (bool ``[components]``) removes; ``fields`` go in as they are."""
    kept = coupling.kept(alive)
    summed = np.zeros(coupling.coupler.count, bool)
    for ids in coupling.coupler.contracted:
        summed[ids] = True
    removed: dict[str, dict[str, Indices]] = {}
    contracted: dict[str, list[int]] = {}
    for tensor, slices in changed_slices(coupling, kept).items():
        for s in slices:
            gone = ~kept.mask(s.ids)
            indices: Indices = (
                np.flatnonzero(gone).tolist()
                if s.rows == 1
                else [np.flatnonzero(row).tolist() for row in gone]
            )
            removed.setdefault(tensor.name, {})[str(s.axis)] = indices
            if summed[s.ids].any():
                contracted.setdefault(tensor.name, []).append(s.axis)
    gates: dict[str, dict[str, list[int]]] = {}
    for gate in coupling.coupler.gates:
        if kept.changed(gate.ids):
            gone = np.flatnonzero(~kept.mask(gate.ids)).tolist()
            gates.setdefault(gate.value.name, {})[str(gate.axis)] = gone
    kept_only: dict[str, dict[str, list[int]]] = {}
    for mixing in coupling.coupler.mixings:
        if kept.changed(mixing.ids):
            gone = np.flatnonzero(~kept.mask(mixing.ids)).tolist()
            kept_only.setdefault(mixing.node.name, {})[str(mixing.axis)] = gone
    return Plan(
        removed=removed,
        contracted=contracted,
        gates=gates,
        kept_only=kept_only,
        renamed=dict(surgery.renamed),
        added=dict(surgery.added),
        **fields,
    )
