"""Random networks, random channels removed: the pruned model equals the masked original, and more."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphprune.budget import Budget, decide
from graphprune.cost import CostModel
from graphprune.coupling import Coupling, couple
from graphprune.criteria import channel_scores, find_criterion
from graphprune.errors import BudgetError
from graphprune.frontends.loading import load_model
from graphprune.frontends.onnx import build_graph
from graphprune.groups import Groups, find_groups
from graphprune.planning import describe
from graphprune.rules import all_rules
from graphprune.selection import build_pools
from graphprune.surgery import apply
from tests import (
    oracle,
    rare_blocks,  # noqa: F401 - importing it registers its blocks
)
from tests import random_graphs as networks
from tests.random_graphs import BLOCKS, Recipe, build, random_recipe, recipes

MODES = (("heads", False), ("width", False), ("heads", True))
SPARSITIES = (0.9, 0.6, 0.4, 0.2, 0.0)
EXAMPLES = int(os.environ.get("GRAPHPRUNE_EXAMPLES", "0"))
"""Set it for a long random search; otherwise the same examples run every time."""


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
    def removed(self) -> float:
        """Share of the prunable channels that went."""
        channels = np.concatenate([g.channels for g in self.groups] or [np.zeros(0, int)])
        return float(np.mean(~self.alive[channels])) if channels.size else 0.0


def prune(original: onnx.ModelProto, seed: int, *, min_channels: int = 1) -> Case:
    """Remove random channels, as many as the first of a few sparsities that can be reached."""
    rng = np.random.default_rng(seed)
    keep_axis, allow_inexact = MODES[int(rng.integers(len(MODES)))]
    model, _ = load_model(original)
    coupling = couple(build_graph(model), keep_axis=keep_axis, allow_inexact=allow_inexact)
    groups = find_groups(coupling)
    scores = channel_scores(groups, find_criterion("random"), rng)
    pools = build_pools(groups, scores, movable=~coupling.frozen, multiple_of=1, min_channels=min_channels)
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
    dynamic = case.original.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for batch in (3, 1) if dynamic else (2,):
        assert oracle.difference(reference, case.pruned, batch) <= oracle.TOLERANCE


def check_sizes(case: Case) -> None:
    """(e) Every tensor in the written file has the size that the plan says."""
    before, after = oracle.stored(case.original), oracle.stored(case.pruned)
    for name, removed in case.plan["removed"].items():
        if name in before:
            kept = oracle.kept_mask(tuple(before[name].dims), removed)
            assert np.prod(after[name].dims) == kept.sum()


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
            assert case.coupling.frozen[a] == again.frozen[b], key
            if not again.frozen[b]:
                assert forward.setdefault(a, b) == b, key
                assert backward.setdefault(b, a) == a, key
    # a group may fall apart where the channels that joined two dimensions went, never the reverse
    groups_again = find_groups(again)
    survivors = sum(int(case.alive[g.channels].sum()) for g in case.groups)
    assert survivors == sum(g.channels.size for g in groups_again)
    for group in groups_again:
        origins = {int(case.groups.group_of[backward[b]]) for b in group.channels.tolist() if b in backward}
        assert len(origins) <= 1, group.name


def _channels(coupling: Coupling, alive: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    """Coupled channels that survive along every axis of every stored tensor that has two or more."""
    found = {}
    for s in coupling.coupler.slices:
        channels = coupling.of(s.ids)
        found[s.tensor.name, s.axis] = channels[alive[channels]]
    return found


def check_all(recipe: Recipe, seed: int) -> float:
    """Every property; returns the share of the channels that went."""
    original = build(recipe)
    case = prune(original, seed)
    check_one_label(case.coupling)
    check_equal(case)
    check_sizes(case)
    check_keep_all(original)
    gentle = prune(original, seed + 1, min_channels=2)
    check_equal(gentle)
    check_reanalysis(gentle)
    return case.removed


# -- tests --------------------------------------------------------------------------------------------


@settings(
    max_examples=EXAMPLES or 180,
    derandomize=not EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(recipes(rare=True), st.integers(0, 2**20))
def test_any_network(recipe: Recipe, seed: int) -> None:
    check_all(recipe, seed)


@pytest.mark.parametrize("block", sorted(BLOCKS) + sorted(networks.rare_blocks()))
def test_every_block_alone(block: str) -> None:
    for seed in range(3):
        recipe = Recipe(((block, seed),), seed, opset=(11, 17, 21)[seed], batch=(None, 1, 2)[seed])
        check_all(recipe, seed)


# Rules that no block draws: rounding to a step, or an index that jumps, says nothing about equality.
ROWS_ONLY = {
    "attention": "opset 23, newer than the generator's",
    "grouped_query_attention": "its heads are as wide as the smallest model",
    "conv_integer": "rounds",
    "dynamic_quantize": "rounds",
    "qlinear_conv": "rounds",
    "qlinear_matmul": "rounds",
    "qlinear_broadcast": "rounds",
    "qlinear_unary": "rounds",
    "qlinear_pool": "rounds",
    "qlinear_concat": "rounds",
    "qgemm": "rounds",
    "argmax": "jumps",
}


def test_every_rule_is_drawn() -> None:
    """Each rule has an operator that some block writes, and tests.test_rules has a row of every operator."""
    drawn = set()
    for block in (*BLOCKS, *networks.rare_blocks()):
        for seed in range(12):
            batch, opset = (None, 1, 2)[seed % 3], (11, 17, 21)[seed // 4]
            for node in build(Recipe(((block, seed),), seed, opset=opset, batch=batch)).graph.node:
                drawn.add(f"{node.domain}::{node.op_type}" if node.domain else node.op_type)
    rules = all_rules()
    found = {rules[operator].function.__name__ for operator in drawn if operator in rules}
    assert found | set(ROWS_ONLY) == {rule.function.__name__ for rule in rules.values()}
    assert not found & set(ROWS_ONLY)
    assert drawn <= set(rules) | {"Constant"}


def test_networks_are_really_pruned() -> None:
    removed = np.array([prune(build(random_recipe(seed)), seed).removed for seed in range(60)])
    assert np.mean(removed > 0) > 0.8
    assert np.mean(removed) > 0.25


# Recipes that failed once, shrunk.
FOUND = {
    "recurrent weight stored flat": (Recipe((("recurrent", 422),), 23, 18), 23),
    "shape of a custom operator after surgery": (
        Recipe((("attention_operator", 599), ("attention_fused", 417)), 29, 13, 1), 29,
    ),
    "scalar index of a Gather": (Recipe((("token_mixer", 293),), 261, 11, 1), 261),
    "two terms on the axis that a movement chain reads": (
        Recipe((("bilinear", 906), ("regroup", 305)), 470, 13, 1), 470,
    ),
    "size of the batch read inside a shuffle": (Recipe((("shuffle_unit", 360),), 486, 18, 1), 486),
    "constraint with a row of which nothing can go": (
        Recipe((("shuffle_unit", 273), ("csp_split", 889), ("grouped", 893)), 887, 13, 1), 0,
    ),
    "fused attention over channels that are tokens": (
        Recipe((("token_mixer", 748), ("attention_operator", 769)), 1289, 17, 1), 1289,
    ),
    "labels that DepthToSpace moves to space": (Recipe((("depth_to_space", 971),), 1249, 17, 1), 1249),
    "weight of a dense and a grouped convolution": (Recipe((("shuffle_unit", 575),), 1531, 13, 1), 1531),
    "constant computed from a quantised one": (Recipe((("focus", 223), ("scale", 39)), 2520, 17, 1), 2520),
    "selection that is an output of the model": (
        Recipe((("channel_slice", 154), ("output", 341)), 12205, 13, 1), 12205,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_found_before(name: str) -> None:
    check_all(*FOUND[name])
