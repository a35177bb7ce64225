"""What a file says about its own sparsity: its metadata, and the plan beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphprune.errors import OptionError, PlanError
from graphprune.notation import parse_block
from graphprune.patterns import block_mask
from graphprune.plan import Plan

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor of the written file -> its shape."""


@dataclass(frozen=True)
class BlockClaim:
    """block: outputs, inputs, kernel, from the metadata; stored_block: along the stored axes, from the plan.

    zeros: share of the weight that lies in dropped blocks, where the plan tells.
    """

    block: tuple[int, ...] | None = None
    stored_block: tuple[int, ...] | None = None
    zeros: float | None = None


@dataclass(frozen=True)
class Claims:
    """structure: what the file was pruned by; blocks, rows: weights said to be pruned in blocks or as N:M."""

    structure: str | None = None
    blocks: Mapping[str, BlockClaim] = field(default_factory=dict)
    rows: frozenset[str] = frozenset()


def metadata_claims(metadata: Mapping[str, str]) -> Claims:
    """From the properties ``graphprune.structure``, ``.block`` and ``.sparsity`` (JSON: weight -> share)."""
    structure = metadata.get("graphprune.structure")
    try:
        recorded = json.loads(metadata.get("graphprune.sparsity", "{}"))
    except ValueError:
        recorded = {}
    names = frozenset(recorded) if isinstance(recorded, dict) else frozenset()
    if structure == "block":
        return Claims(structure, dict.fromkeys(names, BlockClaim(_recorded_block(metadata))))
    return Claims(structure, rows=names if structure == "nm" else frozenset())


def _recorded_block(metadata: Mapping[str, str]) -> tuple[int, ...] | None:
    try:
        return parse_block(metadata.get("graphprune.block", ""))
    except OptionError:
        return None


def plan_claims(plan: Plan, shapes: Shapes) -> Claims:
    """From a plan; entries about tensors that the file lacks are passed over.

    Raises PlanError for a plan that does not fit the file.
    """
    written = {original: name for name, original in plan.renamed.items()}
    blocks = {}
    for original, entry in plan.blocks.items():
        name = written.get(original, original)
        if name not in shapes:
            continue
        try:
            blocks[name] = _block_claim(original, shapes[name], entry, plan)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise PlanError(f"the plan's entry of {original!r} is malformed, or of another model") from None
    rows = {written.get(original, original) for original in plan.patterns}
    return Claims(plan.structure, blocks, frozenset(rows & set(shapes)))


def _block_claim(name: str, shape: tuple[int, ...], entry: Mapping[str, Any], plan: Plan) -> BlockClaim:
    """Put back what was removed, rebuild the mask of kept blocks, and cut it like the weight."""
    removed = {int(axis): indices for axis, indices in plan.removed.get(name, {}).items()}
    if any(indices and isinstance(indices[0], list) for indices in removed.values()):
        return BlockClaim(stored_block=tuple(entry["shape"]))  # cut in every conv group: the numbers decide
    before = tuple(n + len(removed.get(axis, [])) for axis, n in enumerate(shape))
    mask = block_mask(name, before, entry)
    for axis, indices in removed.items():
        mask = np.delete(mask, np.asarray(indices, np.int64), axis=axis)
    return BlockClaim(stored_block=tuple(entry["shape"]), zeros=float(1 - mask.mean()))
