"""Random networks, random channels removed: the pruned model equals the masked original, and more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import oracle
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from random_graphs import Recipe, build, random_recipe, recipes

from graphprune.budget import Budget, decide
from graphprune.cost import CostModel
from graphprune.coupling import Coupling, couple
from graphprune.criteria import find_criterion
from graphprune.errors import BudgetError
from graphprune.frontends.loading import load_model
from graphprune.frontends.onnx import build_graph
from graphprune.groups import Groups, find_groups
from graphprune.planning import describe
from graphprune.selection import build_pools
from graphprune.surgery import apply

MODES = (("heads", False), ("width", False), ("heads", True))
SPARSITIES = (0.9, 0.6, 0.4, 0.2, 0.0)


@dataclass
class Case:
    """One network, analysed, with a random removal carried out."""

    original: onnx.ModelProto
    coupling: Coupling
    groups: Groups
    alive: np.ndarray
    pruned: onnx.ModelProto
    plan: Mapping
    allow_inexact: bool

    @property
    def removes(self) -> bool:
        return not self.alive.all()


def prune(original: onnx.ModelProto, seed: int, *, min_channels: int = 1) -> Case:
    """Remove random channels, as many as the first of a few sparsities that can be reached."""
    rng = np.random.default_rng(seed)
    keep_axis, allow_inexact = MODES[int(rng.integers(len(MODES)))]
    model, _ = load_model(original)
    coupling = couple(build_graph(model), keep_axis=keep_axis, allow_inexact=allow_inexact)
    groups = find_groups(coupling)
    scores = find_criterion("random").function(groups, rng)
    pools = build_pools(
        groups, scores, movable=~coupling.frozen, multiple_of=1, min_channels=min_channels
    )
    cost = CostModel(coupling)
    wanted = SPARSITIES[int(rng.integers(len(SPARSITIES) - 1)) :]
    alive = _decide(groups, pools, cost, wanted)
    surgery = apply(model, coupling, alive)
    plan = describe(coupling, alive, surgery, source_sha256="").to_dict()
    return Case(original, coupling, groups, alive, ir.to_proto(surgery.model), plan, allow_inexact)


def _decide(groups, pools, cost, wanted) -> np.ndarray:
    for sparsity in wanted:
        try:
            return decide(groups, pools, Budget("sparsity", sparsity), cost).alive
        except BudgetError:
            continue
    raise AssertionError("nothing removed cannot be out of reach")


# -- properties ---------------------------------------------------------------------------------------


def check_equal(case: Case) -> None:
    """(a) The pruned model computes what the masked original computes."""
    onnx.checker.check_model(case.pruned, full_check=True)
    reference = oracle.masked(case.original, case.pruned, case.plan)
    assert oracle.difference(reference, case.pruned) <= oracle.TOLERANCE


def check_cost(case: Case) -> None:
    """The cost model's parameters are those of the written file."""
    before = {n: t for n, t in oracle.stored(case.original).items()}
    for name, removed in case.plan["removed"].items():
        if name in before:
            kept = oracle.kept_mask(tuple(before[name].dims), removed).sum()
            found = oracle.stored(case.pruned).get(name)
            assert found is not None and np.prod(found.dims) == kept


def check_keep_all(original: onnx.ModelProto) -> None:
    """(b) Removing nothing gives the same nodes and tensors, byte for byte."""
    model, _ = load_model(original)
    coupling = couple(build_graph(model))
    untouched = ir.to_proto(model)
    same = ir.to_proto(apply(model, coupling, np.ones(coupling.count, bool)).model)
    assert _bytes(same.graph.node) == _bytes(untouched.graph.node)
    assert _bytes(same.graph.initializer) == _bytes(untouched.graph.initializer)
    assert same.SerializeToString(deterministic=True) == untouched.SerializeToString(deterministic=True)
    assert sorted(_bytes(same.graph.initializer)) == sorted(_bytes(original.graph.initializer))
    assert [(n.op_type, list(n.input), list(n.output)) for n in same.graph.node] == [
        (n.op_type, list(n.input), list(n.output)) for n in original.graph.node
    ]


def _bytes(items) -> list[bytes]:
    return [item.SerializeToString(deterministic=True) for item in items]


def check_one_label(coupling: Coupling) -> None:
    """(c) Every (tensor, axis, index) has one label: one slice per axis, as long as the axis."""
    seen = set()
    for s in coupling.coupler.slices:
        key = (s.tensor.name, s.axis)
        assert key not in seen
        seen.add(key)
        assert s.ids.size == s.tensor.shape[s.axis] * s.rows
        assert s.ids.shape == ((s.rows, s.tensor.shape[s.axis]) if s.rows > 1 else (s.ids.size,))
        assert np.unique(s.ids).size == s.ids.size


def check_reanalysis(case: Case) -> None:
    """(d) Analysing the pruned model finds the surviving coupled channels again.

    For every stored tensor and axis, two surviving indices are coupled after exactly if they were before,
    and are prunable exactly if they were. It holds where every axis keeps two positions or more: an axis
    of one is no longer a choice, and what it was tied to may become free.
    """
    model, _ = load_model(case.pruned)
    keep_axis = case.coupling.coupler.keep_axis
    again = couple(build_graph(model), keep_axis=keep_axis, allow_inexact=case.allow_inexact)
    before, after = _channels(case.coupling, case.alive), _channels(again, np.ones(again.count, bool))
    forward: dict[int, int] = {}
    backward: dict[int, int] = {}
    for key in before.keys() & after.keys():
        old, new = before[key], after[key]
        assert old.shape == new.shape, key
        for a, b in zip(old.tolist(), new.tolist(), strict=True):
            if case.coupling.frozen[a] or again.frozen[b]:
                assert case.coupling.frozen[a] and again.frozen[b], key
            else:
                assert forward.setdefault(a, b) == b, key
                assert backward.setdefault(b, a) == a, key
    assert _widths(case.groups, case.alive) == _widths(find_groups(again), np.ones(again.count, bool))


def _channels(coupling: Coupling, alive: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    """Coupled channels that survive along every axis of every stored tensor that has two or more."""
    found = {}
    for s in coupling.coupler.slices:
        channels = coupling.of(s.ids)
        found[s.tensor.name, s.axis] = channels[alive[channels]]
    return found


def _widths(groups: Groups, alive: np.ndarray) -> list[int]:
    """Surviving prunable channels of every group that has any left."""
    counts = (int(alive[g.channels].sum()) for g in groups)
    return sorted(count for count in counts if count)


def check_all(recipe: Recipe, seed: int) -> bool:
    """Every property; returns whether anything was removed."""
    original = build(recipe)
    case = prune(original, seed)
    check_one_label(case.coupling)
    check_equal(case)
    check_cost(case)
    check_keep_all(original)
    gentle = prune(original, seed + 1, min_channels=2)
    check_equal(gentle)
    check_reanalysis(gentle)
    return case.removes
