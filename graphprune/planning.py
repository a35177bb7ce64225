"""A decision -> the plan: indices removed per tensor, gates, kept-only operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphprune.coupling import Coupling
from graphprune.edits import Kept
from graphprune.errors import PlanError
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


def alive_after(coupling: Coupling, removed: Mapping[str, Mapping[str, Indices]]) -> np.ndarray:
    """Which channels stay after what a plan removes: bool ``[components]``, the way back from ``describe``.

    Raises PlanError for tensors or positions that the model does not have, and for channels that cannot go.
    """
    alive = np.ones(coupling.count, bool)
    slices = {(s.tensor.name, s.axis): s for s in coupling.coupler.slices}
    for name, axes in removed.items():
        for axis, indices in axes.items():
            found = slices.get((name, int(axis)))
            if found is None:
                raise PlanError(
                    f"the plan removes positions of {name!r} along axis {axis}: no channels lie there"
                )
            ids, gone = np.atleast_2d(found.ids), np.atleast_2d(np.asarray(indices, np.int64))
            if len(gone) != len(ids) or ((gone < 0) | (gone >= ids.shape[1])).any():
                raise PlanError(f"the plan removes positions that {name!r} does not have along axis {axis}")
            alive[coupling.of(np.take_along_axis(ids, gone, axis=1))] = False
    alive = coupling.grids.decided(alive)
    if (~alive & ~coupling.removable).any() or (coupling.grids.complete(alive) != alive).any():
        raise PlanError(
            "the plan removes channels that cannot go: it was changed, or made by another version"
        )
    return alive


def _gone(kept: Kept, ids: np.ndarray) -> list[int]:
    """Positions of a label vector that go."""
    return [int(i) for i in np.flatnonzero(~kept.mask(ids))]
