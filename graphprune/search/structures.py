"""A structure by name -> its masks in a module, and the file that a finished search gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from graphprune.calibration.channels import compensated, decide_channels
from graphprune.calibration.criteria.obs import obs, obs_weights
from graphprune.calibration.statistics import Statistics
from graphprune.calibration.weights import block_importance, compensated_weights, importance
from graphprune.choosing import PruneOptions, requested_budget
from graphprune.criteria import Criterion, block_scores, channel_scores, weight_scores
from graphprune.errors import OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.fx.importer import Imported
from graphprune.graph import Value
from graphprune.methods import TrainedMethod
from graphprune.models import Model
from graphprune.patterning import blocking_of, rows_of
from graphprune.pruning import Pruned, analyze, cut
from graphprune.rows import RowWeight, plan_fields
from graphprune.search.blocks import BlockUnits
from graphprune.search.channels import ChannelUnits
from graphprune.search.masking import Masking
from graphprune.search.row_masking import RowMasking
from graphprune.search.unit_masking import UnitMasking
from graphprune.search.units import Units
from graphprune.zeroing import WeightDecision, zero_weights


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

    def criterion_scores(self, weighted: ir.Model, criterion: Criterion) -> np.ndarray:
        """What a criterion says of every unit of ``weighted``, float ``[size]``. Raises OptionError."""

    def refitted(self, statistics: Statistics, trained: Mapping[str, np.ndarray]) -> ir.Model:
        """The source with ``trained`` tensors, those that the hard decision keeps fitted to what it computes."""

    def reconstructed(self, statistics: Statistics) -> np.ndarray:
        """What ``--method reconstruct`` says of the source, the kept highest: float ``[units]``.

        Channels are decided under the allocation of ``statistics``. Raises OptionError, BudgetError.
        """


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

    def criterion_scores(self, weighted: ir.Model, criterion: Criterion) -> np.ndarray:
        """Raises OptionError for a criterion that finds nothing to score."""
        analysis = analyze(weighted, self.source.name, self.options, self.source.notes)
        scores = channel_scores(analysis.groups, criterion, np.random.default_rng(self.options.seed))
        return np.asarray(analysis.coupling.grids.spread(scores)[self.masking.units.slots])

    def refitted(self, statistics: Statistics, trained: Mapping[str, np.ndarray]) -> ir.Model:
        """By channels that stay."""
        assert self.masking.hard is not None
        return compensated(statistics, self.masking.hard.decision.alive, "lstsq", trained)

    def reconstructed(self, statistics: Statistics) -> np.ndarray:
        """Ranks: units that its decision removes first, then those that it keeps, each by their score.

        Raises BudgetError.
        """
        units = self.masking.units
        scores = obs(statistics)
        keep = decide_channels(statistics, scores).alive[units.slots]
        return ranks_of(units, keep, scores[units.slots])


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
        decision = WeightDecision(blocking.masks(keep), blocking.plan_fields(keep), achieved, blocking.dense)
        return zero_weights(self.source, weighted, decision, self.options)

    def criterion_scores(self, weighted: ir.Model, criterion: Criterion) -> np.ndarray:
        """Raises OptionError for a criterion of channels only."""
        blocking = blocking_of(build_graph(weighted, self.options.input_shapes), self.options)
        return block_scores(blocking, criterion, np.random.default_rng(self.options.seed))

    def refitted(self, statistics: Statistics, trained: Mapping[str, np.ndarray]) -> ir.Model:
        """By blocks that stay."""
        assert self.masking.hard is not None
        masks = self.units.blocking.masks(self.masking.hard.keep)
        return compensated_weights(statistics, masks, "lstsq", trained)

    def reconstructed(self, statistics: Statistics) -> np.ndarray:
        """Roots of the mean squares of the weights' importance; magnitudes where nothing was measured."""
        return block_importance(self.units.blocking, importance(statistics, obs_weights))


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
        hard = self.masking.hard
        decision = WeightDecision(hard.decision, plan_fields(self.rows), hard.achieved)
        return zero_weights(self.source, weighted, decision, self.options)

    def criterion_scores(self, weighted: ir.Model, criterion: Criterion) -> np.ndarray:
        """Raises OptionError for a criterion of channels only."""
        rng = np.random.default_rng(self.options.seed)
        found = rows_of(build_graph(weighted, self.options.input_shapes), self.options)
        arrays = [np.asarray(r.weight.value.array(), np.float32) for r in found]
        return np.concatenate([weight_scores(a, criterion, rng).reshape(-1) for a in arrays])

    def refitted(self, statistics: Statistics, trained: Mapping[str, np.ndarray]) -> ir.Model:
        """By weights that stay."""
        assert self.masking.hard is not None
        return compensated_weights(statistics, self.masking.hard.decision, "lstsq", trained)

    def reconstructed(self, statistics: Statistics) -> np.ndarray:
        """Raises OptionError: masks of N:M groups start from their weights."""
        raise OptionError("--init-from is for --structure channel and block: leave it out for nm")


def ranks_of(units: Units, keep: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Float ``[units]`` that harden to ``keep``: by ``scores``, with a gap of 1 % of the units before the kept ones.

    The gap is for the noise that tells equal logits apart. A decision may end with a step that goes beyond the
    budget; the layer that it is of then comes last among the removed.
    """
    first = None
    for last in (-1, *np.unique(units.layers[~keep])):
        ranks = np.empty(units.size)
        ranks[np.lexsort((scores, units.layers == last, keep))] = np.arange(units.size)
        ranks += keep * (1 + 0.01 * units.size)
        first = ranks if first is None else first
        if np.array_equal(units.harden(ranks).keep, keep):
            return ranks
    assert first is not None
    return first


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
        **{"allocation": method.allocation, **words},
        structure=name,
        budget=requested_budget(name, nm, budget),
        method=method.name,
    )
    module, nodes, tensors = imported.module, imported.nodes, imported.tensors
    if name == "channel":
        channels = ChannelUnits(analyze(source.ir, source.name, options, source.notes), options, nodes)
        channels.harden(channels.scores())  # a budget that is out of reach is refused before any training
        return ChannelStructure(source, UnitMasking(module, nodes, tensors, channels, method), options)
    if name == "block":
        blocks = BlockUnits(blocking_of(imported.graph, options))
        blocks.harden(blocks.scores(Value.array))
        masking = UnitMasking(module, nodes, tensors, blocks, method)
        return BlockStructure(source, masking, options, blocks, f"block {options.block}")
    rows = rows_of(imported.graph, options)
    row_masking = RowMasking(module, nodes, rows, method, relative=relative)
    return RowStructure(source, row_masking, options, rows, f"nm {options.nm}")
