"""A structure by name -> its masks in a module, and the file that a finished search gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from graphprune.budget import Budget
from graphprune.choosing import PruneOptions
from graphprune.errors import OptionError
from graphprune.fx.importer import Imported
from graphprune.methods import TrainedMethod
from graphprune.models import Model
from graphprune.pruning import Pruned, analyze, cut
from graphprune.search.blocks import BlockUnits, parse_block
from graphprune.search.channels import ChannelUnits
from graphprune.search.masking import Masking, RowMasking, UnitMasking
from graphprune.search.rows import RowState, parse_nm, row_weights
from graphprune.zeroing import zero_weights

STRUCTURES = ("channel", "block", "nm")


class Structure(Protocol):
    """How weights are cut into units, for one model."""

    options: PruneOptions

    @property
    def name(self) -> str:
        """In words: ``channel``, ``block 16x8x1x1``, ``nm 2:4``."""

    @property
    def masking(self) -> Masking:
        """The masks in the module."""

    def write(self, weighted: ir.Model) -> Pruned:
        """The hard decision carried out on ``weighted``: the source with trained weights."""


@dataclass(eq=False)
class ChannelStructure:
    """Whole channels, removed."""

    source: Model
    masking: UnitMasking
    options: PruneOptions
    name: str = "channel"

    def write(self, weighted: ir.Model) -> Pruned:
        """Raises FidelityError where the result does not equal the masked model."""
        assert self.masking.hard is not None
        source = self.source
        analysis = analyze(weighted, source.name, self.options, source.notes)
        decision = self.masking.hard.decision
        return cut(source.ir, weighted, analysis, decision, self.options, sha256=source.sha256())


@dataclass(eq=False)
class BlockStructure:
    """Weight blocks, zeroed."""

    source: Model
    masking: UnitMasking
    options: PruneOptions
    units: BlockUnits
    name: str

    def write(self, weighted: ir.Model) -> Pruned:
        """Raises FidelityError where the result does not equal the masked model."""
        assert self.masking.hard is not None
        keep = self.masking.hard.keep
        blocks = {
            b.weight.value.name: {
                "shape": list(b.block),
                "kept": np.flatnonzero(keep[b.first : b.first + b.count]).tolist(),
            }
            for b in self.units.blocked
        }
        fields = {"structure": "block", "blocks": blocks}
        achieved = self.masking.hard.achieved
        return zero_weights(self.source, weighted, self.units.masks(keep), fields, self.options, achieved)


@dataclass(eq=False)
class RowStructure:
    """N:M patterns, zeroed."""

    source: Model
    masking: RowMasking
    options: PruneOptions
    name: str

    def write(self, weighted: ir.Model) -> Pruned:
        """Raises FidelityError where the result does not equal the masked model."""
        assert self.masking.hard is not None
        shared = self.masking.shared
        patterns = {
            name: {"keep": shared.keep, "of": shared.of, "axis": row.in_axis}
            for name, row in self.masking.rows.items()
        }
        fields = {"structure": "nm", "patterns": patterns}
        hard = self.masking.hard
        return zero_weights(self.source, weighted, hard.decision, fields, self.options, hard.achieved)


def structure_of(
    name: str,
    source: Model,
    imported: Imported,
    method: TrainedMethod,
    budget: Mapping[str, float | None],
    words: Mapping[str, Any],
    relative: bool,
    *,
    block: str,
    nm: str,
    most: float,
) -> Structure:
    """Cut ``source`` into units and put their masks into ``imported.module``.

    ``budget``: sparsity, params and macs, of which one is given (none for nm). ``relative``: temperatures
    are in standard deviations. ``most``: no weight loses a larger share of its blocks.

    Raises OptionError, BudgetError.
    """
    given = {k: v for k, v in budget.items() if v is not None}
    if name not in STRUCTURES:
        raise OptionError(f"unknown structure {name!r}: use one of {', '.join(STRUCTURES)}")
    if name == "nm" and given:
        raise OptionError(f"--{next(iter(given))} does not go with --structure nm: N:M fixes the share")
    if name != "nm" and len(given) != 1:
        raise OptionError("give exactly one of --sparsity, --params and --macs")
    if name == "block" and "sparsity" not in given:
        raise OptionError("--structure block takes --sparsity: the share of the weights to zero")
    kind, requested = next(iter(given.items())) if given else ("sparsity", 0.0)
    options = PruneOptions(
        **{"allocation": "global", **words, "budget": Budget(kind, requested), "method": method.name}
    )
    module, nodes = imported.module, imported.nodes
    if name == "channel":
        channels = ChannelUnits(analyze(source.ir, source.name, options, source.notes), options, nodes)
        channels.harden(channels.scores())  # a budget that is out of reach is refused before any training
        return ChannelStructure(
            source, UnitMasking(module, nodes, channels, np.zeros(channels.size), method), options
        )
    if name == "block":
        blocks = BlockUnits(imported.graph, parse_block(block), requested, max_layer_sparsity=most)
        blocks.harden(blocks.scores())
        masking = UnitMasking(module, nodes, blocks, np.zeros(blocks.size), method)
        return BlockStructure(source, masking, options, blocks, f"block {block}")
    keep, of = parse_nm(nm)
    weights = row_weights(imported.graph, of)
    state = RowState(method, keep, of, relative=relative)
    options = replace(options, budget=Budget("sparsity", 1 - keep / of))
    return RowStructure(source, RowMasking(module, nodes, weights, state), options, f"nm {nm}")
