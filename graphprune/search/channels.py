"""Structure ``channel``: one mask entry for each coupled channel, gated where consumers sum over it."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np

from graphprune.allocation import find_allocation
from graphprune.analysis import Analysis
from graphprune.choosing import PruneOptions, choose, fixed_shares, movable, pools_of
from graphprune.contractions import live_nodes
from graphprune.criteria.scoring import mean_over_slices, slice_scores
from graphprune.errors import BudgetError
from graphprune.graph import Node, Value
from graphprune.groups import Groups
from graphprune.records import Slice
from graphprune.search.statistics import check_mixings
from graphprune.search.units import Gate, Hard, Section, layered
from graphprune.selection import protected


class ChannelUnits:
    """Mask entries are coupled channels; those of a grid of heads and widths are products of two.

    The gate stands on the consumer's weight, along the axis that it sums over: the same number as gating
    the activation after BatchNorm and nonlinearity, since W (s x) = (W s) x, and BatchNorm cannot undo it
    (methods.md A5).
    """

    def __init__(self, analysis: Analysis, options: PruneOptions, held: Container[str] | None = None) -> None:
        """``held``: names of the values that the trainable module has; None takes every one for held."""
        find_allocation(options.allocation)
        self.analysis, self.options = analysis, options
        self.groups: Groups = analysis.groups
        coupling = analysis.coupling
        self.movable = movable(analysis, options)
        every = np.concatenate([g.channels for g in self.groups])
        self.slots = np.unique(every[self.movable[every]])
        self.size = int(self.slots.size)
        if not self.size:
            raise BudgetError("--only and --exclude leave nothing to prune: name other nodes")
        self.entries = coupling.count
        self._held, self._live = held, live_nodes(analysis.graph)
        derived = np.flatnonzero(coupling.grids.derived)
        self.derived = np.column_stack([derived, coupling.grids.parents[derived]]).reshape(-1, 3)
        self.relative = True
        self.gates = self._gates()
        self.members = self._members()
        self.statistics = self._statistics()
        self.cost = np.maximum(self.groups.weights[self.slots].astype(np.float64), 1.0)
        self._pools = pools_of(analysis, options, self._everywhere(self.scores()))
        self.layers = self._layers()
        self.sections = self._sections()

    def scores(self, read: object = None) -> np.ndarray:
        """Relative L2 norms, as the ``magnitude`` criterion: float ``[units]``."""
        reader = read if callable(read) else Value.array
        found = self.groups.coupling.grids.spread(mean_over_slices(self.groups, read=reader))
        return np.asarray(found[self.slots])

    def activation_scores(
        self, read: object, norms: Mapping[str, np.ndarray], *, weighted: bool
    ) -> np.ndarray:
        """Consumers' input norms, times their columns' norms where ``weighted``: float ``[units]``.

        Each relative to its consumer's mean; channels that no measured consumer reads have the mean of all.
        """
        coupling = self.groups.coupling
        reader = read if callable(read) else Value.array
        total, count = np.zeros(self.entries), np.zeros(self.entries)
        for s in self._summed():
            if s.tensor.name not in norms or norms[s.tensor.name].size != s.ids.size:
                continue
            found = norms[s.tensor.name].reshape(s.ids.shape)
            if weighted:
                found = found * slice_scores(np.asarray(reader(s.tensor), np.float32), s)
            np.add.at(total, coupling.of(s.ids), found / max(float(found.mean()), 1e-30))
            np.add.at(count, coupling.of(s.ids), 1)
        scores = np.where(count > 0, total / np.maximum(count, 1), 1.0)
        return np.asarray(coupling.grids.spread(scores)[self.slots])

    def floors(self, logits: np.ndarray) -> np.ndarray:
        """The best units of every axis, so that ``min_channels`` of them stay: bool ``[units]``."""
        scores = self._everywhere(logits)
        kept = protected(self.groups, scores, self.movable, self.options.min_channels)
        return np.asarray(kept[self.slots])

    def harden(self, logits: np.ndarray) -> Hard:
        """Aligned, balanced, exact under the budget: as one-shot pruning with ``logits`` for scores."""
        decision = choose(self.analysis, self.options, self._everywhere(logits))
        return Hard(decision.alive[self.slots], decision.achieved, decision)

    # -- where masks act --------------------------------------------------------------------------

    def _summed(self) -> list[Slice]:
        """Slices of stored tensors along axes that consumers sum over."""
        coupler = self.analysis.coupling.coupler
        return [s for s in coupler.slices if coupler.summed[s.ids].any()]

    def _gates(self) -> list[Gate]:
        coupling = self.analysis.coupling
        changing = np.zeros(coupling.count, bool)
        changing[self.slots] = True
        parents = coupling.grids.parents
        changing[self.derived[:, 0]] = changing[parents[self.derived[:, 0]]].any(axis=1)
        gates = [
            _weight_gate(value, s, coupling.of(s.ids))
            for s in self._summed()
            if changing[coupling.of(s.ids)].any()
            for value in self._readable(s.tensor)
        ]
        for gate in coupling.coupler.gates:
            channels = coupling.of(gate.ids)
            if changing[channels].any() and gate.value.producer in self._live:
                shape = [-1 if a == gate.axis else 1 for a in range(gate.value.rank)]
                gates.append(Gate(gate.value.name, channels.reshape(shape)))
        return gates

    def _members(self) -> list[Gate]:
        """Slices of producers' and consumers' weights."""
        coupling = self.analysis.coupling
        deciding = np.isin(np.arange(self.entries), [*self.slots, *self.derived[:, 0]])
        return [
            _weight_gate(s.tensor, s, coupling.of(s.ids))
            for s in coupling.coupler.slices
            if s.tensor.rank >= 2 and deciding[coupling.of(s.ids)].any()
        ]

    def _readable(self, tensor: Value) -> list[Value]:
        """Where the gate of a stored tensor stands: itself, or what a quantised one is dequantised to.

        Nowhere for a tensor that no output depends on.
        """
        readers = [n for n in tensor.consumers if n in self._live]
        if not readers or self._held is None or tensor.name in self._held:
            return [tensor] if readers else []
        if any(n.op != "DequantizeLinear" or n.input(0) is not tensor for n in readers):
            return [tensor]
        return [n.outputs[0] for n in readers]

    def _statistics(self) -> list[tuple[Node, np.ndarray]]:
        coupling = self.analysis.coupling
        moving = np.isin(np.arange(self.entries), [*self.slots, *self.derived[:, 0]])
        mixings = [m for m in coupling.coupler.mixings if m.node in self._live]
        found = [m for m in mixings if moving[coupling.of(m.ids)].any()]
        check_mixings(found)
        return [(m.node, coupling.of(m.ids)) for m in found]

    # -- budgets ----------------------------------------------------------------------------------

    def _sections(self) -> list[Section]:
        if self.options.allocation != "global":
            return layered(self, self.harden(self.scores()).keep)
        sections = []
        for i, share in fixed_shares(self._pools, self.options).items():
            units = np.flatnonzero(self.layers == i)
            total = float(self.cost[units].sum())
            sections.append(Section(units, self.cost[units], total, total * (1 - share)))
        given = [s.units for s in sections]
        free = np.setdiff1d(np.arange(self.size), np.concatenate(given) if given else [])
        if free.size:
            sections.append(self._free(free, sections))
        return [s for s in sections if s.units.size]

    def _layers(self) -> np.ndarray:
        """The pool of every unit."""
        number = np.full(self.entries, -1)
        for i, pool in enumerate(self._pools):
            for group in pool.groups:
                number[group.channels] = i
        return np.asarray(number[self.slots])

    def _free(self, units: np.ndarray, fixed: list[Section]) -> Section:
        budget, cost = self.options.budget, self.cost[units]
        if budget.kind == "sparsity" and not self.derived.size:
            free = self.groups.coupling.removable & (self.groups.producers > 0)
            every = float(self.groups.producers[free].sum())
            gone = budget.requested * every - sum(s.total - s.target for s in fixed)
            total = float(cost.sum())
            return Section(units, cost, total, max(total - gone, 0.0))
        curve = ModelCurve(self, budget.kind)
        total = curve.value_and_gradient(np.ones(self.size))[0]
        share = 1 - budget.requested
        base = curve.whole * share if budget.kind != "sparsity" else total - curve.whole * budget.requested
        return Section(units, cost, total, base, curve)

    def _everywhere(self, logits: np.ndarray) -> np.ndarray:
        """Unit scores as component scores; what no unit stands for is never compared."""
        scores = np.full(self.entries, float(np.max(logits, initial=0.0)))
        scores[self.slots] = logits
        return scores


class ModelCurve:
    """Parameters, MACs or removed filters of the whole model under soft masks: products of counts."""

    def __init__(self, units: ChannelUnits, kind: str) -> None:
        self.units = units
        cost = units.analysis.cost
        free = units.groups.coupling.removable & (units.groups.producers > 0)
        self.producers = np.where(free, units.groups.producers, 0).astype(np.float64)
        self.soft = {"params": cost.soft_params, "macs": cost.soft_macs, "sparsity": self._filters}[kind]
        self.whole = self.soft(np.ones(units.entries))[0]

    def value_and_gradient(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        """Cost that stays under ``s`` (float64 ``[units]``) and its gradient."""
        slots, derived = self.units.slots, self.units.derived
        keep = np.ones(self.units.entries)
        keep[slots] = s
        entry, first, second = derived.T if derived.size else (slots[:0],) * 3
        keep[entry] = keep[first] * keep[second]
        value, slope = self.soft(keep)
        inner = slope[entry]
        np.add.at(slope, first, inner * keep[second])
        np.add.at(slope, second, inner * keep[first])
        return value, slope[slots]

    def _filters(self, keep: np.ndarray) -> tuple[float, np.ndarray]:
        return float(self.producers @ keep), self.producers.copy()


def _weight_gate(value: Value, s: Slice, channels: np.ndarray) -> Gate:
    """The gate of a weight (of the stored tensor's shape); a grouped one has other channels in each block."""
    stored = s.tensor.shape
    assert stored is not None
    shape = [1] * len(stored)
    if s.rows > 1:
        channels = np.repeat(channels, stored[0] // s.rows, axis=0)
        shape[0] = stored[0]
    shape[s.axis] = channels.shape[-1]
    return Gate(value.name, channels.reshape(shape), stored)
