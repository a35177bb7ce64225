"""Latency: what is counted and predicted, with clocks and tables made up; and one short run of everything."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import Run, small_network
from onnx import TensorProto, helper, numpy_helper

import graphprune
from graphprune.budget import Budget, Decision, OutOfReach
from graphprune.engine import Engine
from graphprune.errors import BudgetError, OptionError, PlanError
from graphprune.frontends.onnx import build_graph
from graphprune.latency import cache, judging, meeting, table
from graphprune.latency.contraction import DEPTHWISE, Contraction
from graphprune.latency.judging import Judge
from graphprune.latency.layers import attribute, by_operator, side_by_side
from graphprune.latency.meeting import LOOKS, TOLERANCE, meet
from graphprune.latency.multiples import CANDIDATES, WIDTHS, measure_multiples
from graphprune.latency.predicting import Predictor, Surface
from graphprune.latency.sessions import Kernel
from graphprune.latency.table import CostTable, Point, time_points
from graphprune.latency.timing import Spread, Turns, ratio, take_turns, warm_up
from graphprune.plan import Plan
from graphprune.selection import DEFAULT_RULE, alignment


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# -- timing -------------------------------------------------------------------------------------------


class FakeMachine:
    """A clock that runs only while models do; each model takes what it says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def model(self, name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            self.now += next(seconds)
            self.log.append(name)

        return run


def always(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def test_models_take_turns_and_none_always_follows_the_same() -> None:
    machine = FakeMachine()
    runs = [machine.model("a", always(1.0)), machine.model("b", always(2.0))]
    found = take_turns(runs, Turns(runs=4), machine)
    assert machine.log == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found.shape == (2, 4)
    np.testing.assert_allclose(found[1] / found[0], 2)


@pytest.mark.parametrize(
    ("turns", "expected"), [(Turns(seconds=0, least=7), 7), (Turns(seconds=60, most=9), 9)]
)
def test_turns_end_between_least_and_most(turns: Turns, expected: int) -> None:
    machine = FakeMachine()
    assert take_turns([machine.model("a", always(1.0))], turns, machine).shape == (1, expected)


def test_warm_up_ends_when_runs_no_longer_get_faster() -> None:
    machine = FakeMachine()
    falling = iter([9.0] * 3 + [5.0] * 3 + [3.0] * 3 + [1.0] * 100)
    assert warm_up(machine.model("a", falling), machine) == 15
    machine = FakeMachine()
    always_faster = iter([0.5**i for i in range(100)])
    assert warm_up(machine.model("a", always_faster), machine, block=1, most=6) == 6


def test_a_slow_spell_of_the_machine_cancels_in_the_ratio() -> None:
    rng = np.random.default_rng(0)
    busy = np.where(np.arange(60) < 25, 4.0, 1.0)
    first, second = busy * rng.uniform(1, 1.02, 60), 0.7 * busy * rng.uniform(1, 1.02, 60)
    found = ratio(second, first)
    assert abs(found.value - 0.7) < 0.01
    assert found.low < found.value < found.high < 0.72
    assert found.differs
    assert Spread.of(first).busy
    assert not Spread.of(rng.uniform(1, 1.02, 60)).busy


def test_equal_models_differ_by_no_more_than_noise() -> None:
    rng = np.random.default_rng(1)
    assert not ratio(rng.uniform(1, 1.3, 101), rng.uniform(1, 1.3, 101)).differs


def test_spread_in_milliseconds() -> None:
    found = Spread.of(np.arange(1, 102) / 1000).to_dict()
    assert found == {"median_ms": 51, "q25_ms": 26, "q75_ms": 76, "p10_ms": 11, "p90_ms": 91}


# -- where the time goes ------------------------------------------------------------------------------


def kernel(name: str, op: str, *microseconds: float) -> Kernel:
    return Kernel(name, op, np.array(microseconds) / 1e6)


def test_kernels_count_for_the_operators_they_come_from() -> None:
    graph = build_graph(ir.from_proto(small_network()), {})
    found = attribute(
        [
            kernel("b_nchwc", "Conv", 5, 7, 6),  # conv1 with relu1, named by what relu1 makes
            kernel("conv2", "Conv", 8),
            kernel("fused relu2", "FusedConv", 2),  # counts for conv2 as well
            kernel("ReorderOutput_token_5", "ReorderOutput", 1),
            kernel("fc/MatMulAddFusion", "Gemm", 3),
        ],
        graph,
    )
    assert {k: (op, round(1e6 * s, 6)) for k, (op, s) in found.items()} == {
        "conv1": ("Conv", 6),
        "conv2": ("Conv", 10),
        "(ReorderOutput)": ("ReorderOutput", 1),
        "fc": ("Gemm", 3),
    }


def test_layers_of_a_pruned_model_go_by_the_original_names() -> None:
    before = {"conv": ("Conv", 4.0), "gone": ("Relu", 1.0)}
    after = {"conv_cut": ("Conv", 2.0), "(Reorder)": ("Reorder", 0.5)}
    rows = side_by_side([before, after], [{}, {"conv_cut": "conv"}])
    assert {r.name: r.seconds for r in rows} == {
        "conv": [4.0, 2.0],
        "gone": [1.0, None],
        "(Reorder)": [None, 0.5],
    }
    assert [(r.op, r.seconds) for r in by_operator(rows, 2)] == [
        ("Conv", [4.0, 2.0]),
        ("Relu", [1.0, 0.0]),
        ("Reorder", [0.0, 0.5]),
    ]


# -- the cost table -----------------------------------------------------------------------------------


def test_cache_keeps_engines_apart_and_survives_damage(tmp_path: Path) -> None:
    one, two = ({"threads": n, "machine": "m", "onnxruntime": "1", "provider": "CPU"} for n in (1, 2))
    cache.add(one, {"a": 1.0})
    cache.add(one, {"b": 2.0})
    assert cache.read(one) == {"a": 1.0, "b": 2.0}
    assert cache.read(two) == {}
    for damage in ("{", "[]", '{"seconds": {"a": "x"}}', '{"seconds": {"a": -1}}'):
        cache.cache_file(one).write_text(damage)
        assert cache.read(one) == {}
    cache.add(one, {"c": 3.0})
    assert cache.read(one) == {"c": 3.0}


def test_a_cache_that_takes_no_files_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.add({"threads": 1}, {"a": 1.0})
    assert cache.read({"threads": 1}) == {}


def test_the_table_measures_each_point_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Point]] = []

    def measure(contraction: Contraction, points: list[Point], engine: Engine) -> list[float]:
        asked.append(list(points))
        return [float("nan") if p == (9, 9) else 1e-3 for p in points]

    monkeypatch.setattr(table, "time_points", measure)
    layer = Contraction("MatMul", "float32", (4,))
    for engine in (Engine(1), Engine(1), Engine(1, cache=False)):
        costs = CostTable.of(engine)
        costs.fill([(layer, [(2, 3), (2, 3), (9, 9)]), (layer, [(2, 3)])][:1])
        assert costs.at(layer, (2, 3)) == 1e-3
        assert np.isnan(costs.at(layer, (9, 9)))  # what does not run is tried again
    assert asked == [[(2, 3), (9, 9)], [(9, 9)], [(2, 3), (9, 9)]]


CONTRACTIONS = [
    Contraction("Conv", "float32", (1, 6, 6), (3, 3), (("strides", (2, 2)), ("pads", (1, 1, 1, 1)))),
    Contraction("Conv", "float32", (2, 9), (3,), (("auto_pad", "SAME_UPPER"),), groups=2),
    Contraction("Conv", "float32", (1, 6, 6), (3, 3), groups=DEPTHWISE, multiplier=2),
    Contraction("ConvTranspose", "float32", (1, 5, 5), (2, 2), (("strides", (2, 2)),)),
    Contraction("MatMul", "float32", (7,)),
]


@pytest.mark.parametrize("contraction", CONTRACTIONS, ids=lambda c: f"{c.op}-{c.groups}")
def test_contractions_run_alone(contraction: Contraction) -> None:
    points = [(4, 8), (8, 16)]
    seconds = time_points(contraction, points, Engine(1))
    assert len(seconds) == 2
    assert all(0 < s < 1 for s in seconds)


def test_a_contraction_that_does_not_run_has_no_time() -> None:
    too_small = Contraction("Conv", "float32", (1, 2, 2), (5, 5))
    assert np.isnan(time_points(too_small, [(4, 4)], Engine(1))).all()


def test_keys_tell_layers_apart() -> None:
    keys = {c.key(*p) for c in CONTRACTIONS for p in ((4, 8), (8, 4))}
    assert len(keys) == 2 * len(CONTRACTIONS)


def test_surface_is_monotone_whatever_the_noise() -> None:
    rng = np.random.default_rng(0)
    counts = np.arange(1, 6) * 8
    surface = Surface(counts, counts, np.outer(counts, counts) * rng.uniform(0.5, 1.5, (5, 5)))
    found = np.array([[surface((i, o)) for o in range(4, 44)] for i in range(4, 44)])
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()


# -- prediction ---------------------------------------------------------------------------------------


def by_work(contraction: Contraction, points: list[Point], engine: Engine) -> list[float]:
    """A machine whose latency is the multiply-accumulates of what it writes, and nothing else."""
    return [contraction.work(*p) * 1e-12 for p in points]


def network(*layers: tuple[int, int, int], last: int = 4) -> onnx.ModelProto:
    """Convolutions (outputs, kernel, groups; groups 0 is depthwise) on 8 images of 12 x 12, with ReLUs between."""
    rng = np.random.default_rng(0)
    nodes, weights, width = [], [], 16
    for i, (out, kernel_size, groups) in enumerate([*layers, (last, 1, 1)]):
        groups = groups or width
        array = rng.standard_normal((out, width // groups, kernel_size, kernel_size)).astype(np.float32)
        weights.append(numpy_helper.from_array(array / np.float32(np.sqrt(array[0].size)), f"w{i}"))
        pads = [kernel_size // 2] * 4
        nodes.append(
            helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], f"conv{i}", pads=pads, group=groups)
        )
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"], f"relu{i}"))
        width = out
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [8, 16, 12, 12])],
        [helper.make_tensor_value_info(f"x{len(layers) + 1}", TensorProto.FLOAT, [8, last, 12, 12])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "model",
    [
        network((32, 3, 1), (48, 1, 1), (32, 3, 1)),
        network((32, 3, 1), (32, 3, 0), (64, 1, 1)),
        network((32, 1, 1), (32, 3, 4), (64, 1, 1)),
    ],
    ids=["plain", "depthwise", "grouped"],
)
def test_prediction_is_exact_where_the_table_is(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "time_points", by_work)
    analysis = graphprune.analyze(model)
    predict = Predictor(analysis, CostTable(Engine(cache=False)), whole=0.0)
    assert predict(analysis.everything) == pytest.approx(0, abs=1e-9)
    for sparsity in (0.2, 0.5, 0.7):
        result = graphprune.prune(model, sparsity=sparsity, method="random", multiple_of=4)
        alive = graphprune.planning.alive_after(analysis.coupling, result.plan.removed)
        expected = 1 - result.plan.macs["after"] / result.plan.macs["before"]
        assert predict(alive) == pytest.approx(expected, abs=1e-6)
        assert expected > 0.1


def test_what_the_table_does_not_explain_shrinks_with_what_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "time_points", by_work)
    model = network((32, 1, 1), (32, 1, 1), last=32)
    analysis = graphprune.analyze(model)
    layers = sum(
        Contraction("Conv", "float32", (8, 12, 12), (1, 1)).work(*p) * 1e-12
        for p in ((16, 32), (32, 32), (32, 32))
    )
    predict = Predictor(analysis, CostTable(Engine(cache=False)), whole=3 * layers)
    result = graphprune.prune(model, sparsity=0.5, multiple_of=8)
    alive = graphprune.planning.alive_after(analysis.coupling, result.plan.removed)
    macs = 1 - result.plan.macs["after"] / result.plan.macs["before"]
    assert predict(alive) == pytest.approx((macs + 2 * (1 / 3)) / 3, abs=1e-6)


# -- meeting the budget -------------------------------------------------------------------------------


class Steps:
    """Decisions of which a budget takes the longest prefix that fits, and their true latency."""

    def __init__(self, count: int, truth: Callable[[float], float], reach: float = 1.0) -> None:
        self.count, self.truth, self.reach, self.built = count, truth, reach, 0

    def predict(self, alive: np.ndarray) -> float:
        return self.reach * float((~alive).mean())

    def decide(self, budget: Budget) -> Decision:
        assert budget.measure == self.predict
        gone = round(budget.wanted / self.reach * self.count)
        if gone > self.count:
            raise OutOfReach("too little", self.reach)
        alive = np.arange(self.count) >= gone
        return Decision(alive, self.predict(alive))

    def share(self, alive: np.ndarray) -> tuple[float, bool]:
        self.built += 1
        return self.truth(self.predict(alive)), False


@pytest.mark.parametrize("requested", [0.9, 0.6, 0.4, 0.25])
@pytest.mark.parametrize(
    "truth", [lambda p: 1 - p, lambda p: 1 - p**2, lambda p: 1 - 0.8 * p, lambda p: (1 - p) ** 2 * 0.9 + 0.1]
)
def test_a_wrong_prediction_is_corrected(requested: float, truth: Callable[[float], float]) -> None:
    steps = Steps(400, truth)
    met = meet(requested, steps.predict, steps.decide, steps.share)
    assert met.notes == ()
    assert all(abs(m / requested - 1) <= TOLERANCE for m in met.measured)
    assert steps.built <= 6


def test_a_second_measurement_that_differs_does_not_count() -> None:
    """The first candidate looks right by chance; its second measurement says that it is not."""
    noise = iter([0.2])
    steps = Steps(400, lambda p: 1 - p / 2 - next(noise, 0.0))
    met = meet(0.6, steps.predict, steps.decide, steps.share)
    assert met.measured == (pytest.approx(0.6, rel=TOLERANCE),) * 2
    assert steps.predict(met.decision.alive) == pytest.approx(0.8, abs=0.05)


def test_one_wrong_measurement_does_not_lead_astray() -> None:
    """A slow spell during the first measurement; the same candidate comes up again and is measured again."""
    noise = iter([0.4])
    steps = Steps(20, lambda p: 1 - p + next(noise, 0.0))
    met = meet(0.6, steps.predict, steps.decide, steps.share)
    assert met.notes == ()
    assert steps.predict(met.decision.alive) == pytest.approx(0.4, abs=0.03)


def test_steps_too_coarse_end_with_the_nearest_and_a_note() -> None:
    steps = Steps(2, lambda p: 1 - p)
    met = meet(0.7, steps.predict, steps.decide, steps.share)
    assert met.measured == (0.5, 0.5)
    assert "was not met within 5 %" in met.notes[0]
    assert "0.500" in met.notes[0]
    assert steps.built <= 2 * LOOKS  # there are two decisions


def test_what_cannot_be_reached_says_what_was_measured() -> None:
    steps = Steps(100, lambda p: 1 - p, reach=0.5)
    with pytest.raises(BudgetError, match=r"--latency 0.3 cannot be reached: what can go here leaves 0.50 "):
        meet(0.3, steps.predict, steps.decide, steps.share)


def test_more_than_predicted_may_be_within_reach() -> None:
    steps = Steps(100, lambda p: 1 - 1.5 * p, reach=0.5)
    met = meet(0.3, steps.predict, steps.decide, steps.share)
    assert all(abs(m / 0.3 - 1) <= TOLERANCE for m in met.measured)


def test_a_busy_machine_is_told() -> None:
    steps = Steps(400, lambda p: 1 - p)
    met = meet(0.5, steps.predict, steps.decide, lambda alive: (steps.share(alive)[0], True))
    assert "the machine was busy" in met.notes[-1]


# -- multiples ----------------------------------------------------------------------------------------


def test_default_alignment_needs_no_measuring() -> None:
    assert DEFAULT_RULE == ((64, 16), (32, 8))
    assert [alignment(w, None) for w in (31, 32, 63, 64, 500)] == [1, 8, 8, 16, 16]
    assert alignment(64, 3) == 3
    assert alignment(64, None, ((128, 32), (16, 4))) == 4


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (lambda n: n * n, dict.fromkeys(WIDTHS, 1)),
        (lambda n: n * n * (1.5 if n % 8 else 1.0), dict.fromkeys(WIDTHS, 8)),
        (lambda n: n * n * (1.5 if n % 16 else 1.0), dict.fromkeys(WIDTHS, 16)),
        (lambda n: n * n * (1.5 if n % 64 else 1.0), {32: 1, 64: 32, 128: 32}),
        (lambda n: n * n * (1.5 if n % 4 else 1.04 if n % 8 else 1.0), dict.fromkeys(WIDTHS, 4)),
    ],
    ids=["none", "8", "16", "64 is no candidate", "4 is nearly as good"],
)
def test_multiples_that_kernels_reward(
    seconds: Callable[[int], float], expected: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(contraction: Contraction, points: list[Point], engine: Engine) -> list[float]:
        return [seconds(n) * 1e-9 for n, _ in points]

    monkeypatch.setattr(table, "time_points", measure)
    found = measure_multiples(Engine(cache=False))
    assert dict(found.rule) == expected
    assert [w for w, _ in found.rule] == sorted(WIDTHS, reverse=True)
    assert len(json.loads(json.dumps(found.to_dict()))["costs"]) == len(CANDIDATES)


# -- from end to end ----------------------------------------------------------------------------------


@pytest.fixture
def machine_by_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose latency is that of its multiply-accumulates, without noise."""
    monkeypatch.setattr(table, "time_points", by_work)
    monkeypatch.setattr(Judge, "whole", lambda self: 0.0)

    def share(self: Judge, candidate: ir.Model) -> tuple[float, bool]:
        before, after = (graphprune.analyze(ir.to_proto(m)).cost.total_macs for m in (self._model, candidate))
        return after / before, False

    monkeypatch.setattr(Judge, "share", share)


@pytest.mark.usefixtures("machine_by_macs")
@pytest.mark.parametrize("method", ["magnitude", "reconstruct"])
def test_latency_budget_is_met_recorded_and_applied_again(method: str, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(network((48, 3, 1), (64, 3, 1), (48, 1, 1)), source)
    rng = np.random.default_rng(0)
    data = [{"x0": rng.standard_normal((8, 16, 12, 12)).astype(np.float32)} for _ in range(4)]
    words = {"data": data} if method == "reconstruct" else {}
    result = graphprune.prune(source, latency=0.6, engine=Engine(1), method=method, **words)
    budget = result.plan.budget
    assert (budget["kind"], budget["requested"], budget["threads"]) == ("latency", 0.6, 1)
    assert budget["achieved"] == pytest.approx(0.6, rel=TOLERANCE)
    assert budget["measured"] == [budget["achieved"]] * 2
    assert budget["achieved"] == pytest.approx(
        result.plan.macs["after"] / result.plan.macs["before"], abs=1e-4
    )
    assert set(budget) == {
        *("kind", "requested", "achieved", "measured", "threads", "provider", "onnxruntime", "machine"),
    }
    assert Plan.from_dict(json.loads(result.plan.to_json())) == result.plan
    assert "latency" in result.to_html()
    out = result.save(tmp_path / "small.onnx")
    if method == "magnitude":
        again = graphprune.apply(source, tmp_path / "small.plan.json")
        assert again.save(tmp_path / "again.onnx").read_bytes() == out.read_bytes()
        assert again.plan.budget == budget


def test_a_damaged_latency_budget_is_no_plan() -> None:
    budget = {"kind": "latency", "requested": 0.5, "achieved": 0.5, "measured": [0.5, "x"], "threads": 1}
    budget |= {"provider": "CPU", "onnxruntime": "1", "machine": "m"}
    data = Plan(source_sha256="", budget=budget).to_dict()
    with pytest.raises(PlanError, match="budget"):
        Plan.from_dict(data)


@pytest.mark.usefixtures("machine_by_macs")
def test_measured_multiples_align_a_latency_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine (multiply-accumulates alone) rewards no multiple: counts are free, unless one is given."""
    model = network((64, 3, 1), (64, 3, 1))
    free = graphprune.prune(model, latency=0.7, engine=Engine(cache=False))
    given = graphprune.prune(model, latency=0.7, engine=Engine(cache=False), multiple_of=16)

    def kept(result: graphprune.PruneResult) -> set[int]:
        found = {w.name: w.dims[0] for w in result.model.to_onnx().graph.initializer}
        return {found["w0"], found["w1"]}

    assert any(n % 8 for n in kept(free))
    assert not any(n % 16 for n in kept(given))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--latency", "0.5", "--structure", "block"], "--structure channel alone"),
        (["--latency", "0.5", "--structure", "branch"], "--structure channel alone"),
        (["--latency", "0"], "above 0 and up to 1"),
        (["--latency", "1.2"], "above 0 and up to 1"),
        (["--latency", "0.5", "--macs", "0.5"], "exactly one of"),
        (["--latency", "0.5", "--method", "synflow"], "does not go with training"),
        (["--latency", "0.5", "--provider", "Nowhere"], "this onnxruntime does not have it"),
        (["--macs", "0.5", "--provider", "CPU"], "give --latency too"),
        (["--macs", "0.5", "--no-cache"], "give --latency too"),
    ],
)
def test_refusals(words: list[str], sentence: str, model_file: Path, run: Run) -> None:
    code, _, err = run("prune", model_file, *words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not model_file.with_name("model.pruned.onnx").exists()


def test_prune_to_latency_on_this_machine(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part of it on onnxruntime, too short to be exact: whatever is met, the plan says what was measured."""
    monkeypatch.setattr(judging, "TURNS", Turns(runs=15))
    monkeypatch.setattr(meeting, "TOLERANCE", 0.2)
    source = tmp_path / "model.onnx"
    onnx.save(network((128, 3, 1), (128, 3, 1), (128, 3, 1)), source)
    words = ["--latency", "0.6", "--threads", "1", "--multiple-of", "16"]
    code, out, _ = run("prune", source, *words, "-o", tmp_path / "small.onnx")
    assert code == 0
    plan = Plan.load(tmp_path / "small.plan.json")
    assert 0.3 < plan.budget["achieved"] < 0.9
    assert len(plan.budget["measured"]) == 2
    assert plan.fidelity["max_rel_diff"] < 1e-4
    assert "of the original's, measured on" in out
    cached = list((tmp_path / "cache" / "graphprune").iterdir())
    assert len(cached) == 1
    assert json.loads(cached[0].read_text())["threads"] == 1


def test_bench_side_by_side(tmp_path: Path, run: Run) -> None:
    source, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    onnx.save(network((128, 3, 1), (128, 3, 1)), source)
    graphprune.prune(source, macs=0.9).save(small)
    code, out, _ = run("bench", source, small, "--threads", 1, "--runs", 20, "--json", "-")
    assert code == 0
    found = json.loads(out)
    assert (found["threads"], found["turns"]) == (1, 20)
    assert found["inputs"] == {"x0": [8, 16, 12, 12]}
    first, second = found["models"]
    assert first["ratio"] is None
    assert 0 < second["ratio"]["low"] <= second["ratio"]["value"] <= second["ratio"]["high"] < 1
    assert first["bytes"] == source.stat().st_size
    if sys.platform == "linux":
        assert first["memory"]["peak"] > first["memory"]["model"] > 0
    layers = {row["name"]: row["ms"] for row in found["layers"]}
    for name in ("conv0", "conv1", "conv2"):
        assert layers[name][0] > 0
        assert layers[name][1] > 0
    assert layers["conv1"][1] < layers["conv1"][0]
    code, out, _ = run("bench", source, "--runs", 3, "--no-profile", "--threads", 1)
    assert code == 0
    assert "model.onnx" in out
    assert "Where the time goes" not in out


def test_bench_refusals(tmp_path: Path, model_file: Path, run: Run) -> None:
    other = tmp_path / "other.onnx"
    onnx.save(network((32, 1, 1)), other)
    cases = [
        ([model_file, other], "latencies of different sizes do not compare"),
        ([other, "--batch", 4], "the model fixes the size of its batch"),
        ([tmp_path / "missing.onnx"], "missing.onnx"),
        ([model_file, "--seconds", 0], "give a time above 0"),
        ([model_file, "--json", model_file], "would replace the model"),
    ]
    for words, sentence in cases:
        code, _, err = run("bench", *words)
        assert code == 2, words
        assert sentence in err


def test_bench_batch_and_sizes(model_file: Path) -> None:
    words = {"turns": Turns(runs=2), "profile": False, "engine": Engine(1)}
    assert graphprune.latency.bench(model_file, batch=3, **words).inputs == {"x": [3, 3, 8, 8]}
    found = graphprune.latency.bench(model_file, input_shapes={"x": (5, 3, 8, 8)}, **words)
    assert found.inputs == {"x": [5, 3, 8, 8]}
    assert not any("guessed" in note for note in found.notes)


def test_engine() -> None:
    assert Engine(provider="CPU").provider == "CPUExecutionProvider"
    with pytest.raises(OptionError, match="--threads -1"):
        Engine(-1)
    with pytest.raises(OptionError, match="did you mean 'CPUExecutionProvider'"):
        Engine(provider="CPUx").check()
