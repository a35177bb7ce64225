"""``analyze``: what a model consists of and what of it can be pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphprune.cost import CostModel
from graphprune.coupling import Coupling, couple
from graphprune.errors import OptionError
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph, Node
from graphprune.groups import Group, Groups, find_groups

if TYPE_CHECKING:
    from graphprune.sensitivity import Sensitivity

ATTENTION = ("heads", "width", "both")


@dataclass(eq=False)
class Analysis:
    """Groups, costs and reasons of one model. ``to_dict`` is what ``analyze --json`` prints."""

    name: str
    graph: Graph
    coupling: Coupling
    groups: Groups
    cost: CostModel
    notes: list[str]
    patterns: dict[str, Any] | None = None
    """Blocks or N:M groups of every weight, where they were asked for."""
    branches: list[dict[str, Any]] | None = None
    """Residual branches, where they were asked for."""
    sensitivity: Sensitivity | None = None
    """Each group pruned alone, where it was asked for."""

    @cached_property
    def everything(self) -> np.ndarray:
        """The decision that removes nothing (bool ``[components]``)."""
        return np.ones(self.coupling.count, bool)

    @property
    def batch(self) -> int:
        """Samples at the analysed sizes: axis 0 of the first input, 1 where there is none."""
        first = self.graph.inputs[0].shape if self.graph.inputs else None
        return max(first[0], 1) if first else 1

    @cached_property
    def prunable_channels(self) -> int:
        """Producer filters that may go."""
        return int(self.groups.producers[self.coupling.removable].sum())

    @cached_property
    def prunable_params(self) -> int:
        """Parameters in slices of prunable channels: what removing all of them would delete."""
        return self.cost.total_params - self.cost.params(~self.coupling.removable)

    @cached_property
    def frozen_reasons(self) -> dict[Node, str]:
        """Why a node's output channels stay, and for operators that freeze what others make, why."""
        found: dict[Node, str] = {}
        for ids, node in self.coupling.coupler.born:
            channels = self.coupling.of(ids)
            stuck = channels[self.coupling.frozen[channels]]
            event = next((self.coupling.why[c] for c in stuck.tolist() if c in self.coupling.why), None)
            if event is not None:
                found.setdefault(node, event.sentence)
        makers = {node for _, node in self.coupling.coupler.born}
        for event in self.coupling.coupler.frozen:
            stuck = self.coupling.born & self.coupling.frozen
            if (
                event.node is not None
                and event.node not in makers
                and stuck[self.coupling.of(event.ids)].any()
            ):
                found.setdefault(event.node, event.reason.value)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``analyze --json``; field by field in the README."""
        macs = self.cost.macs_by_node(self.everything)
        params = self.cost.params_by_node(self.everything)
        reasons = self.frozen_reasons
        patterns = {} if self.patterns is None else {"patterns": self.patterns}
        branches = {} if self.branches is None else {"branches": self.branches}
        sensitivity = {} if self.sensitivity is None else {"sensitivity": self.sensitivity.to_dict()}
        return {
            **patterns,
            **branches,
            **sensitivity,
            "model": self.name,
            "opset": self.graph.opset,
            "params": self.cost.total_params,
            "macs": self.cost.total_macs,
            "prunable_params": self.prunable_params,
            "prunable_channels": self.prunable_channels,
            "inputs": {v.name: list(v.shape or ()) for v in self.graph.inputs},
            "guessed_inputs": sorted(self.graph.guessed),
            "notes": list(self.notes),
            "groups": [self._group(g) for g in self.groups],
            "constraints": [
                {
                    "kind": b.kind,
                    "rows": int(b.ids.shape[0]),
                    "groups": sorted({int(g) for g in self._groups_of(b.ids) if g >= 0}),
                    "nodes": [b.node.name],
                }
                for b in (*self.coupling.coupler.balances, *self.coupling.coupler.position_ties)
            ],
            "nodes": [
                {
                    "name": n.name,
                    "op": n.op,
                    "params": params.get(n, 0),
                    "macs": macs.get(n, 0),
                    "frozen_reason": reasons.get(n),
                }
                for n in self.graph.nodes
                if n.op != "Constant"
            ],
        }

    def _groups_of(self, ids: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.unique(self.groups.group_of[self.coupling.of(ids)])
        return found

    def _group(self, group: Group) -> dict[str, Any]:
        width = max(group.width, 1)
        return {
            "id": group.id,
            "name": group.name,
            "channels": int(group.channels.size) if group.prunable else group.width,
            "frozen_channels": int(group.frozen.size),
            "prunable": group.prunable,
            "reason": group.reason,
            "params_per_channel": round(group.params / width, 2),
            "macs_per_channel": round(group.macs / width, 2),
            "members": [{"tensor": m.tensor, "axis": m.axis, "size": m.size} for m in group.members],
        }

    def to_html(self) -> str:
        """The HTML report: one file that needs nothing else, the same text for the same model."""
        from graphprune.reporting import content_of, page

        return page(content_of(self))


def analyze_model(
    model: ir.Model,
    name: str,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    attention: str = "heads",
    allow_inexact: bool = False,
    notes: list[str] | None = None,
) -> Analysis:
    """Trace and couple ``model``.

    ``input_shapes``: sizes for dynamic inputs (others are guessed). ``attention``: remove whole heads,
    width inside every head, or both. ``allow_inexact``: prune through normalisations over channels.
    """
    if attention not in ATTENTION:
        raise OptionError(f"unknown --attention {attention!r}: use one of {', '.join(ATTENTION)}")
    graph = build_graph(model, input_shapes)
    coupling = couple(graph, keep_axis=attention, allow_inexact=allow_inexact)
    groups = find_groups(coupling)
    found = list(notes or [])
    for guessed, shape in graph.guessed.items():
        found.append(f"input {guessed!r} has dynamic sizes; analysed as {list(shape)} (set --input-shape)")
    return Analysis(name, graph, coupling, groups, CostModel(coupling), found)
