"""A structure by name -> its masks in a module, and the file that a finished search gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from graphprune.choosing import PruneOptions, requested_budget
from graphprune.fx.importer import Imported
from graphprune.graph import Value
from graphprune.methods import TrainedMethod
from graphprune.models import Model
from graphprune.patterning import blocking_of, rows_of
from graphprune.pruning import Pruned, analyze, cut
from graphprune.rows import RowWeight, plan_fields
from graphprune.search.blocks import BlockUnits
from graphprune.search.channels import ChannelUnits
from graphprune.search.masking import Masking, RowMasking, UnitMasking
from graphprune.search.rows import RowState
from graphprune.zeroing import zero_weights


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
        keep, achieved = self.masking.hard.keep, self.masking.hard.achieved
        blocking = self.units.blocking
        masks, fields = blocking.masks(keep), blocking.plan_fields(keep)
        return zero_weights(
            self.source, weighted, masks, fields, self.options, achieved, dense=blocking.dense
        )


@dataclass(eq=False)
class RowStructure:
    """N:M patterns, zeroed."""

    source: Model
    masking: RowMasking
    options: PruneOptions
    rows: Sequence[RowWeight]
    name: str

    def write(self, weighted: ir.Model) -> Pruned:
        """Raises FidelityError where the result does not equal the masked model."""
        assert self.masking.hard is not None
        hard, fields = self.masking.hard, plan_fields(self.rows)
        return zero_weights(self.source, weighted, hard.decision, fields, self.options, hard.achieved)


def structure_of(
    name: str,
    source: Model,
    imported: Imported,
    method: TrainedMethod,
    budget: Mapping[str, float | None],
    words: Mapping[str, Any],
    relative: bool,
) -> Structure:
    """Cut ``source`` into units and put their masks into ``imported.module``.

    ``budget``: sparsity, params and macs, of which one is given (none for nm). ``relative``: temperatures
    are in standard deviations.

    Raises OptionError, BudgetError.
    """
    nm = str(words.get("nm", PruneOptions.nm))
    options = PruneOptions(
        **{"allocation": "global", **words},
        structure=name,
        budget=requested_budget(name, nm, budget),
        method=method.name,
    )
    module, nodes = imported.module, imported.nodes
    if name == "channel":
        channels = ChannelUnits(analyze(source.ir, source.name, options, source.notes), options, nodes)
        channels.harden(channels.scores())  # a budget that is out of reach is refused before any training
        return ChannelStructure(
            source, UnitMasking(module, nodes, channels, np.zeros(channels.size), method), options
        )
    if name == "block":
        blocks = BlockUnits(blocking_of(imported.graph, options))
        blocks.harden(blocks.scores(Value.array))
        masking = UnitMasking(module, nodes, blocks, np.zeros(blocks.size), method)
        return BlockStructure(source, masking, options, blocks, f"block {options.block}")
    rows = rows_of(imported.graph, options)
    keep, of = rows[0].keep, rows[0].of
    state = RowState(method, keep, of, relative=relative)
    return RowStructure(source, RowMasking(module, nodes, rows, state), options, rows, f"nm {options.nm}")
