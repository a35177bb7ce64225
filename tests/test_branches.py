"""Whole residual branches: what is found, what goes, what is chosen, and that the proof tells right from wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from conftest import Run
from onnx import TensorProto, helper, numpy_helper
from real_models import SHARED_MODELS

import graphprune
from graphprune.analysis import Analysis, analyze_model
from graphprune.branches.cosine import influence
from graphprune.branches.knapsack import cheapest
from graphprune.branches.pruning import analyze_branches
from graphprune.branches.registry import all_branch_methods, branch_method
from graphprune.branches.removal import Removal
from graphprune.branches.surgery import remove_branches
from graphprune.budget import Budget
from graphprune.calibration.inputs import Reading, calibration_feeds, feeds_of, random_feeds
from graphprune.data.inputs import input_specs
from graphprune.data.opening import open_data
from graphprune.errors import BudgetError, DataError, ModelError, OptionError, PlanError
from graphprune.models import load
from graphprune.plan import Plan
from graphprune.proof import verify_models
from graphprune.reference import build_reference
from graphprune.residuals import Branch, find_branches

ROOT = Path(__file__).resolve().parents[1]
RESNET20 = ROOT / "sample_models" / "resnet20_cifar10.onnx"
WIDTH = 4


class Net:
    """A network of 6 x 6 images in the making; names of weights say what they belong to."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.seed = seed

    def op(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}.out"], name, **attributes))
        return f"{name}.out"

    def weight(self, name: str, *shape: int, scale: float = 1.0) -> str:
        rng = np.random.default_rng([self.seed, *name.encode()])
        array = rng.standard_normal(shape) * scale / np.sqrt(np.prod(shape[1:]))
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x: str, name: str, out: int, inputs: int, kernel: int = 3, scale: float = 1.0) -> str:
        weight = self.weight(f"{name}.weight", out, inputs, kernel, kernel, scale=scale)
        return self.op("Conv", [x, weight], name, pads=[kernel // 2] * 4)

    def body(self, x: str, name: str, middle: int = 8, scale: float = 1.0) -> str:
        """conv -> Relu -> conv, from WIDTH channels to WIDTH channels."""
        a = self.op("Relu", [self.conv(x, f"{name}.conv1", middle, WIDTH)], f"{name}.relu")
        return self.conv(a, f"{name}.conv2", WIDTH, middle, scale=scale)

    def stem(self) -> str:
        return self.op("Relu", [self.conv("x", "stem", WIDTH, 3)], "stem.relu")

    def head(self, x: str) -> str:
        """Mean over the image -> 5 classes."""
        flat = self.op("Flatten", [self.op("GlobalAveragePool", [x], "mean")], "flatten")
        return self.op("Gemm", [flat, self.weight("fc.weight", 5, WIDTH, scale=4)], "fc", transB=1)

    def model(self, *outputs: str, batch: int | str = "n", channels: int = 3) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, 6, 6])],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def found_in(model: onnx.ModelProto | Path) -> list[dict[str, Any]]:
    """As ``analyze`` lists them."""
    branches = graphprune.analyze(model, structure="branch").branches
    assert branches is not None
    return branches


def sizes(model: onnx.ModelProto, *prefixes: str) -> int:
    """Elements of the weights whose names begin so."""
    return sum(int(np.prod(w.dims)) for w in model.graph.initializer if w.name.startswith(prefixes))


def outputs_of(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(a) for a in session.run(None, feed)]


def images(count: int, channels: int = 3, seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((count, channels, 6, 6)).astype(np.float32)}


# -- finding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("op", ["Add", "Sum"])
def test_a_residual_block(op: str, order: tuple[int, int]) -> None:
    net = Net()
    x = net.stem()
    operands = (x, net.body(x, "b"))
    y = net.op(op, [operands[i] for i in order], "sum")
    model = net.model(net.head(y))
    (branch,) = found_in(model)
    assert (branch["node"], branch["value"], branch["removed"]) == ("sum", "sum.out", "b.conv2.out")
    assert branch["params"] == sizes(model, "b.") == 2 * 8 * WIDTH * 9
    assert branch["macs"] == branch["params"] * 36
    assert not branch["projection"]


def test_a_bottleneck_with_a_normalisation() -> None:
    net = Net()
    x = net.stem()
    a = net.op("Relu", [net.conv(x, "b.one", 2, WIDTH, 1)], "b.relu")
    b = net.conv(net.conv(a, "b.two", 2, 2), "b.three", WIDTH, 2, 1)
    norm = [net.weight(f"b.{n}", WIDTH) for n in ("scale", "bias", "mean")]
    variance = numpy_helper.from_array(np.ones(WIDTH, np.float32), "b.variance")
    net.weights.append(variance)
    b = net.op("BatchNormalization", [b, *norm, "b.variance"], "b.norm")
    model = net.model(net.head(net.op("Add", [b, x], "sum")))
    (branch,) = found_in(model)
    assert branch["params"] == sizes(model, "b.")
    assert branch["removed"] == "b.norm.out"


def test_a_projection_shortcut_stays() -> None:
    """Both operands are computed from one value: the branch is the one with more parameters."""
    net = Net()
    x = net.stem()
    model = net.model(net.head(net.op("Add", [net.body(x, "b"), net.conv(x, "p", WIDTH, WIDTH, 1)], "sum")))
    (branch,) = found_in(model)
    assert branch["projection"]
    assert branch["removed"] == "b.conv2.out"
    assert branch["params"] == sizes(model, "b.")
    notes = graphprune.prune(model, structure="branch", sparsity=0.99).analysis.notes
    assert any("projection" in n for n in notes)


def test_a_branch_inside_a_branch() -> None:
    net = Net()
    x = net.stem()
    first = net.conv(x, "outer.conv", WIDTH, WIDTH)
    inner = net.op("Add", [first, net.body(first, "inner")], "inner.sum")
    y = net.op("Add", [x, net.conv(inner, "outer.last", WIDTH, WIDTH)], "outer.sum")
    model = net.model(net.head(y))
    small, large = found_in(model)
    assert (small["node"], large["node"]) == ("inner.sum", "outer.sum")
    assert small["params"] == sizes(model, "inner.")
    assert large["params"] == sizes(model, "inner.", "outer.")


def test_only_what_nothing_else_reads_counts() -> None:
    """An inner value is an output too: the first convolution stays, the second one goes."""
    net = Net()
    x = net.stem()
    y = net.op("Add", [x, net.body(x, "b")], "sum")
    model = net.model(net.head(y), "b.relu.out")
    (branch,) = found_in(model)
    assert branch["params"] == sizes(model, "b.conv2")
    result = graphprune.prune(model, structure="branch", sparsity=0.9)
    assert result.plan.params["before"] - result.plan.params["after"] == branch["params"]
    assert result.fidelity.holds


def test_parallel_branches_of_one_stream() -> None:
    """x + f(norm) + g(norm), as GPT-J writes it: the other operand is a sum with x in it."""
    net = Net()
    x = net.stem()
    shared = net.op("Sigmoid", [x], "shared")
    y = net.op("Add", [x, net.body(shared, "f")], "sum1")
    z = net.op("Add", [net.body(shared, "g"), y], "sum2")
    model = net.model(net.head(z))
    found = found_in(model)
    assert [b["removed"] for b in found] == ["f.conv2.out", "g.conv2.out"]
    result = graphprune.prune(model, structure="branch", sparsity=0.99)
    assert "Sigmoid" not in {n.op_type for n in result.model.to_onnx().graph.node}
    assert "stem.relu" in {n.name for n in result.model.to_onnx().graph.node}


def no_constant(net: Net, x: str) -> str:
    return net.op("Add", [net.conv(x, "c", WIDTH, WIDTH), net.weight("k", 1, WIDTH, 6, 6)], "sum")


def no_broadcast(net: Net, x: str) -> str:
    pooled = net.op("GlobalAveragePool", [x], "pool")
    return net.op("Add", [x, net.conv(pooled, "c", WIDTH, WIDTH, 1)], "sum")


def no_broadcast_of_another_batch(net: Net, x: str) -> str:
    """Shapes agree for one sample only."""
    first = net.op("ReduceMean", [net.conv(x, "c", WIDTH, WIDTH)], "pool", axes=[0])
    return net.op("Add", [x, first], "sum")


def no_weights(net: Net, x: str) -> str:
    return net.op("Add", [x, net.op("Sigmoid", [x], "s")], "sum")


def no_double(net: Net, x: str) -> str:
    a = net.conv(x, "c", WIDTH, WIDTH)
    return net.op("Add", [a, a], "sum")


def no_branch_that_is_needed(net: Net, x: str) -> str:
    """The last value of the branch is read by another node, too."""
    b = net.body(x, "b")
    return net.op("Mul", [net.op("Add", [x, b], "sum"), b], "product")


def no_two_sources(net: Net, x: str) -> str:
    """Neither operand is computed from the other, nor both from one value."""
    a, b = net.op("Sigmoid", [x], "s"), net.op("Tanh", [x], "t")
    left = net.op("Mul", [net.conv(a, "c", WIDTH, WIDTH), b], "left")
    return net.op("Mul", [net.op("Add", [left, net.conv(b, "d", WIDTH, WIDTH)], "sum"), a], "product")


def no_contraction(net: Net, x: str) -> str:
    return net.op("Add", [x, net.op("Mul", [x, net.weight("gamma", 1, WIDTH, 1, 1)], "scaled")], "sum")


def no_two_values(net: Net, x: str) -> str:
    """Each operand is computed from a value of its own, and both values are read elsewhere."""
    a, b = net.op("Sigmoid", [x], "s"), net.op("Tanh", [x], "t")
    both = net.op("Add", [net.conv(a, "c", WIDTH, WIDTH), net.conv(b, "d", WIDTH, WIDTH)], "sum")
    return net.op("Mul", [both, net.op("Mul", [a, b], "product")], "gated")


@pytest.mark.parametrize(
    "build",
    [
        no_constant, no_broadcast, no_broadcast_of_another_batch, no_weights, no_double, no_branch_that_is_needed,
        no_two_sources, no_contraction, no_two_values,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_what_is_no_residual_branch(build: Callable[[Net, str], str]) -> None:
    net = Net()
    model = net.model(net.head(build(net, net.stem())))
    assert found_in(model) == []
    with pytest.raises(BudgetError, match="no residual branch"):
        graphprune.prune(model, structure="branch", sparsity=0.5)


def test_weights_that_branches_share_go_with_the_last_of_them() -> None:
    net = Net()
    x = net.stem()
    weight = net.weight("tied", WIDTH, WIDTH, 3, 3)
    for i in range(2):
        x = net.op("Add", [x, net.op("Conv", [x, weight], f"c{i}", pads=[1] * 4)], f"sum{i}")
    model = net.model(net.head(x))
    assert [b["params"] for b in found_in(model)] == [0, 0]
    for share, lost in ((0.5, 0), (0.99, sizes(model, "tied"))):
        result = graphprune.prune(model, structure="branch", sparsity=share)
        assert result.plan.params["before"] - result.plan.params["after"] == lost
        stored = sizes(result.model.to_onnx(), "")
        assert stored == result.plan.params["after"]


# -- surgery and proof -----------------------------------------------------------------------------------


def chain(gone: Sequence[int] = (), count: int = 5, seed: int = 0) -> onnx.ModelProto:
    """Stem -> ``count`` residual blocks of other widths and strengths -> 5 classes; those in ``gone`` left out."""
    net = Net(seed)
    x = net.stem()
    scales = np.random.default_rng([seed, 7]).uniform(0.2, 2.0, count)
    for i in range(count):
        if i not in gone:
            body = net.body(x, f"b{i}", 3 + 2 * (i * 3 % count), scales[i])
            x = net.op("Add", [x, body], f"sum{i}")
            x = net.op("Relu", [x], f"relu{i}")
        else:
            x = net.op("Relu", [x], f"relu{i}")
    return net.model(net.head(x))


def analysed(model: onnx.ModelProto) -> tuple[Analysis, list[Branch]]:
    analysis = analyze_model(load(model).ir, "net")
    return analysis, find_branches(analysis.graph, analysis.cost.macs_by_node(analysis.everything))


@pytest.mark.parametrize("gone", [(0,), (4,), (1, 2), (0, 1, 2, 3, 4)])
def test_the_result_is_the_network_without_the_blocks(gone: tuple[int, ...]) -> None:
    model = chain()
    _, branches = analysed(model)
    small = load(remove_branches(load(model).ir, [branches[i] for i in gone])).to_onnx()
    wanted = chain(gone)
    assert [n.name for n in small.graph.node] == [n.name for n in wanted.graph.node]
    kept = {w.name: numpy_helper.to_array(w).tobytes() for w in small.graph.initializer}
    assert kept == {w.name: numpy_helper.to_array(w).tobytes() for w in wanted.graph.initializer}
    for count in (1, 3):
        assert np.array_equal(outputs_of(small, images(count))[0], outputs_of(wanted, images(count))[0])


def test_names_of_inputs_and_outputs_stay() -> None:
    """The sum is an output, the shortcut an input: an Identity stands between them."""
    net = Net()
    model = net.model(net.op("Add", [net.conv("x", "c", 3, 3), "x"], "sum"))
    result = graphprune.prune(model, structure="branch", sparsity=0.9)
    small = result.model.to_onnx()
    assert [n.op_type for n in small.graph.node] == ["Identity"]
    assert [o.name for o in small.graph.output] == ["sum.out"]
    assert set(result.plan.added) == {small.graph.node[0].name}
    assert result.plan.params == {"before": 81, "after": 0}
    assert np.array_equal(outputs_of(small, images(2))[0], images(2)["x"])


def test_removing_an_outer_branch_takes_the_inner_one_along() -> None:
    net = Net()
    x = net.stem()
    first = net.conv(x, "outer.conv", WIDTH, WIDTH)
    inner = net.op("Add", [first, net.body(first, "inner")], "inner.sum")
    y = net.op("Add", [x, net.conv(inner, "outer.last", WIDTH, WIDTH)], "outer.sum")
    result = graphprune.prune(net.model(net.head(y)), structure="branch", sparsity=0.99)
    assert result.plan.budget["achieved"] == 1.0
    assert [b["node"] for b in result.plan.branches] == ["outer.sum"]
    assert result.fidelity.holds


def test_the_reference_is_another_computation() -> None:
    """The masked original keeps every node and weight, and one multiplication by 0 more for each branch."""
    model = chain()
    result = graphprune.prune(model, structure="branch", sparsity=0.4)
    source = load(model)
    reference = load(build_reference(source.ir, result.model.ir, result.plan)).to_onnx()
    names = [n.name for n in model.graph.node]
    assert [n.name for n in reference.graph.node if n.name in names] == names
    assert len(reference.graph.node) == len(names) + 2
    assert len(result.model.to_onnx().graph.node) == len(names) - 2 * 4
    (wanted,), (found,) = outputs_of(reference, images(3)), outputs_of(result.model.to_onnx(), images(3))
    assert np.abs(wanted - found).max() <= 1e-6 * np.abs(wanted).max()


def test_the_proof_fails_for_other_files() -> None:
    model = chain()
    source, result = load(model), graphprune.prune(chain(), structure="branch", sparsity=0.2)
    assert graphprune.verify(source, result.model, result.plan).holds
    _, branches = analysed(model)
    (removed,) = [b["value"] for b in result.plan.branches]
    for other in [b for b in branches if b.value != removed]:
        wrong = remove_branches(source.ir, [other])
        assert not verify_models(source.ir, wrong, result.plan).holds
    for weight in ("stem.weight", "fc.weight"):
        tampered = result.model.to_onnx()
        (tensor,) = [w for w in tampered.graph.initializer if w.name == weight]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, weight))
        assert not verify_models(source.ir, load(tampered).ir, result.plan).holds
    both = remove_branches(source.ir, branches[:2])
    assert not verify_models(source.ir, both, result.plan).holds


def test_plans_with_and_without_branches() -> None:
    result = graphprune.prune(chain(), structure="branch", sparsity=0.4)
    data = json.loads(result.plan.to_json())
    assert Plan.from_dict(data).branches == result.plan.branches
    del data["branches"]
    assert Plan.from_dict(data).branches == []
    assert not verify_models(load(chain()).ir, result.model.ir, Plan.from_dict(data)).holds
    wrong: list[Any] = [
        {"value": "nowhere", "removed": "x"},
        {"value": "relu0.out", "removed": "sum0.out"},
        "sum0",
    ]
    for entry in wrong:
        with pytest.raises(PlanError, match=r"wrong model|'branches' is not"):
            verify_models(load(chain()).ir, result.model.ir, Plan.from_dict(data | {"branches": [entry]}))


def test_a_saved_file_is_verified(tmp_path: Path) -> None:
    result = graphprune.prune(RESNET20, structure="branch", params=0.2)
    path = result.save(tmp_path / "small.onnx")
    assert not (tmp_path / "small.blocks.npz").exists()
    fidelity = graphprune.verify(RESNET20, path)
    assert fidelity.holds
    assert fidelity.exact
    assert not fidelity.vacuous
    stored = sum(int(np.prod(w.dims)) for w in onnx.load(path).graph.initializer if w.data_type == 1)
    assert stored == result.plan.params["after"]
    with pytest.raises(OptionError, match="whole branches"):
        result.emit("compact")


EXPECTED = {"resnet50": (16, 4), "vit": (8, 0), "swin": (8, 0)}
"""Branches of the samples, and how many of them stand beside a projection."""


@pytest.mark.parametrize("name", EXPECTED)
def test_samples(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the samples are built with torch")
    from sample_models import export

    path = export(name, tmp_path / f"{name}.onnx")
    found = found_in(path)
    assert (len(found), sum(b["projection"] for b in found)) == EXPECTED[name]
    result = graphprune.prune(path, structure="branch", sparsity=0.5)
    assert result.fidelity.holds
    assert result.fidelity.exact
    assert result.plan.budget["achieved"] == pytest.approx(0.5)
    gone = [b for b in found if b["value"] in {e["value"] for e in result.plan.branches}]
    assert result.plan.params["before"] - result.plan.params["after"] == sum(b["params"] for b in gone)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("Kahsolt__ch_PP-OCRv3_det_infer", 18),
        ("Kahsolt__ch_ppocr_mobile_v2.0_cls_infer", 7),
        ("Kazuhito00__yolox_nano", 7),
        ("udaypartha__yolov8n-seg_int8", 6),
    ],
)
def test_third_party_files(name: str, count: int) -> None:
    path = SHARED_MODELS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    assert len(found_in(path)) == count
    result = graphprune.prune(path, structure="branch", sparsity=0.5)
    assert result.plan.budget["achieved"] == pytest.approx(0.5, abs=0.5 / count + 1e-9)
    assert result.fidelity.holds
    assert not result.fidelity.vacuous


# -- budgets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sparsity", "params", "macs"])
@pytest.mark.parametrize("requested", [0.0, 0.1, 0.24, 0.33, 0.5, 0.7])
def test_budgets_are_met_within_one_branch(kind: str, requested: float) -> None:
    source = load(RESNET20)
    result = graphprune.prune(source, structure="branch", **{kind: requested})
    analysis = analyze_model(source.ir, "net")
    macs = analysis.cost.macs_by_node(analysis.everything)
    removal = Removal(analysis.graph, find_branches(analysis.graph, macs), macs, Budget(kind, requested))
    values = {e["value"] for e in result.plan.branches}
    chosen = frozenset(i for i, b in enumerate(removal.branches) if b.value in values)
    achieved = result.plan.budget["achieved"]
    assert achieved == removal.share(chosen)
    if kind != "sparsity":
        counts = getattr(result.plan, kind)
        assert achieved == pytest.approx(1 - counts["after"] / counts["before"])
    if achieved <= requested:
        more = [removal.share(chosen | {i}) for i in removal.left(chosen)]
        assert all(m > requested and m - requested >= requested - achieved - 1e-9 for m in more)
    else:
        less = [removal.share(chosen - {i}) for i in chosen]
        assert any(m <= requested and achieved - requested < requested - m for m in less)


def test_budgets_out_of_reach() -> None:
    with pytest.raises(BudgetError, match=r"all 9 residual branches hold 0\.98"):
        graphprune.prune(RESNET20, structure="branch", macs=0.99)
    with pytest.raises(OptionError, match="exactly one of"):
        graphprune.prune(RESNET20, structure="branch")


def test_names_decide_what_may_go() -> None:
    result = graphprune.prune(chain(), structure="branch", sparsity=0.99, exclude=["b0.*", "sum3"])
    assert [b["node"] for b in result.plan.branches] == ["sum1", "sum2", "sum4"]
    only = graphprune.prune(chain(), structure="branch", sparsity=0.99, only=["b2.conv1.weight"])
    assert [b["node"] for b in only.plan.branches] == ["sum2"]
    with pytest.raises(OptionError, match="matches 'zzz'"):
        graphprune.prune(chain(), structure="branch", sparsity=0.5, exclude=["zzz"])
    with pytest.raises(OptionError, match="--ratio"):
        graphprune.prune(chain(), structure="branch", sparsity=0.5, ratios={"b0.*": 0.5})


# -- methods -------------------------------------------------------------------------------------------


def divergence(model: onnx.ModelProto, small: onnx.ModelProto, feed: dict[str, np.ndarray]) -> float:
    """KL of the classes, in nats."""
    (a,), (b,) = outputs_of(model, feed), outputs_of(small, feed)
    p, q = (np.exp(x - x.max(1, keepdims=True)).astype(np.float64) for x in (a, b))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return float((p * np.log(p / q)).sum(1).mean())


def chosen_blocks(result: graphprune.PruneResult) -> set[int]:
    return {int(e["node"].removeprefix("sum")) for e in result.plan.branches}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_finercut_is_the_greedy(seed: int) -> None:
    model, feed = chain(seed=seed), images(20)
    gone: tuple[int, ...] = ()
    for count in (1, 2, 3):
        rest = [i for i in range(5) if i not in gone]
        losses = {i: divergence(model, chain((*gone, i), seed=seed), feed) for i in rest}
        gone = (*gone, min(losses, key=losses.__getitem__))
        result = graphprune.prune(
            model, structure="branch", sparsity=count / 5, method="finercut", data=[feed]
        )
        assert chosen_blocks(result) == set(gone)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_knapsack_is_the_best_of_all_subsets(seed: int) -> None:
    model, feed = chain(seed=seed), images(20)
    losses = [divergence(model, chain((i,), seed=seed), feed) for i in range(5)]
    params = [sizes(model, f"b{i}.") for i in range(5)]
    for kind, costs in (("sparsity", [1] * 5), ("params", params)):
        total = 5 if kind == "sparsity" else sizes(model, "")
        for want in (0.2, 0.4, 0.6):
            subsets = [s for n in range(6) for s in itertools.combinations(range(5), n)]
            enough = [s for s in subsets if sum(costs[i] for i in s) >= want * total - 1e-9]
            best = min(enough, key=lambda s: sum(losses[i] for i in s))
            found = graphprune.prune(
                model, structure="branch", method="branch-knapsack", data=[feed], **{kind: want}
            )
            assert chosen_blocks(found) == set(best)


def nested(levels: int, seed: int) -> onnx.ModelProto:
    """Three outer branches with ``levels`` branches inside of each."""
    net = Net(seed)
    x = net.stem()
    for o in range(3):
        y = net.conv(x, f"o{o}.first", WIDTH, WIDTH)
        for i in range(levels):
            y = net.op("Add", [y, net.body(y, f"o{o}.i{i}", 2 + i + o)], f"o{o}.i{i}.sum")
        x = net.op("Add", [x, net.conv(y, f"o{o}.last", WIDTH, WIDTH)], f"o{o}.sum")
    return net.model(net.head(x))


@pytest.mark.parametrize("seed", range(6))
def test_the_knapsack_with_branches_inside_branches(seed: int) -> None:
    """Equal to brute force over all sets in which no branch contains another."""
    analysis, branches = analysed(nested(2, seed))
    assert len(branches) == 9
    macs = analysis.cost.macs_by_node(analysis.everything)
    rng = np.random.default_rng(seed)
    losses = rng.uniform(0.1, 1, 9)
    for kind, want in (("sparsity", 4 / 9), ("params", 0.3), ("macs", 0.55)):
        removal = Removal(analysis.graph, branches, macs, Budget(kind, want))
        costs = [removal.share({i}) for i in range(9)]
        inside = {i: removal.gone({i}) - {i} for i in range(9)}
        best = np.inf
        for bits in itertools.product((0, 1), repeat=9):
            chosen = [i for i in range(9) if bits[i]]
            if any(inside[i] & set(chosen) for i in chosen) or sum(costs[i] for i in chosen) < want - 1e-9:
                continue
            best = min(best, sum(losses[i] for i in chosen))
        found = cheapest(removal, costs, losses.tolist())
        assert removal.share(found) >= want - 1e-9
        assert sum(losses[i] for i in found) == pytest.approx(best)
        assert removal.outermost(found) == sorted(found)


def test_cosine_takes_what_turns_its_input_least() -> None:
    model, feed = chain(), images(30)
    exposed = onnx.ModelProto.FromString(model.SerializeToString())
    shortcuts = ["stem.relu.out", *(f"relu{k}.out" for k in range(4))]
    names = [name for i, before in enumerate(shortcuts) for name in (f"sum{i}.out", before)]
    exposed.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
    found = dict(zip([o.name for o in exposed.graph.output], outputs_of(exposed, feed), strict=True))
    scores = []
    for after, before in zip(names[::2], names[1::2], strict=True):
        a, b = (found[n].reshape(30, -1) for n in (after, before))
        scores.append(
            np.mean([1 - u @ v / np.sqrt(u @ u) / np.sqrt(v @ v) for u, v in zip(a, b, strict=True)])
        )
    for count in (1, 2, 3):
        result = graphprune.prune(model, structure="branch", sparsity=count / 5, method="cosine", data=[feed])
        assert chosen_blocks(result) == set(np.argsort(scores)[:count].tolist())


def test_block_influence_is_per_token_for_sequences() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 4, 8))
    assert influence(a, b).shape == (12,)
    assert influence(a.reshape(3, 4, 2, 4), b.reshape(3, 4, 2, 4)).shape == (3,)
    assert influence(a, 3 * a) == pytest.approx(0, abs=1e-12)
    assert influence(a, -a) == pytest.approx(2)


def test_magnitude_says_that_it_is_a_guess() -> None:
    model = chain()
    for tensor in model.graph.initializer:
        if tensor.name.startswith("b3."):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1e-3, tensor.name))
    result = graphprune.prune(model, structure="branch", sparsity=0.2)
    assert chosen_blocks(result) == {3}
    assert any("finercut" in note for note in result.analysis.notes)


def test_methods_that_look_need_data() -> None:
    for method in all_branch_methods().values():
        if method.looks:
            with pytest.raises(OptionError, match="needs inputs"):
                graphprune.prune(chain(), structure="branch", sparsity=0.2, method=method.name)
    with pytest.raises(OptionError, match="did you mean 'finercut'"):
        graphprune.prune(chain(), structure="branch", sparsity=0.2, method="finecut")
    wrong = [{"x": np.zeros((2, 5, 6, 6), np.float32)}]
    with pytest.raises(ModelError, match="calibration data"):
        graphprune.prune(chain(), structure="branch", sparsity=0.2, method="cosine", data=wrong)
    with pytest.raises(ValueError, match="already"):
        branch_method("cosine", citation="", looks=True)(lambda question: frozenset())


def test_a_model_without_float_outputs() -> None:
    net = Net()
    x = net.stem()
    y = net.op("ArgMax", [net.head(net.op("Add", [x, net.body(x, "b")], "sum"))], "best", axis=1)
    model = net.model(y)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(OptionError, match="--method cosine"):
        graphprune.prune(model, structure="branch", sparsity=0.9, method="finercut", data=[images(2)])
    result = graphprune.prune(model, structure="branch", sparsity=0.9, method="cosine", data=[images(2)])
    assert result.fidelity.holds


def test_modules_and_training_are_refused() -> None:
    torch = pytest.importorskip("torch")
    from graphprune.recipes.training import TrainingOptions

    module, example = torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 6, 6)
    with pytest.raises(OptionError, match="export the module"):
        graphprune.prune(module, example, structure="branch", sparsity=0.5)
    with pytest.raises(OptionError, match="does not train"):
        graphprune.prune(chain(), structure="branch", sparsity=0.5, training=TrainingOptions("x.npz"))
    with pytest.raises(OptionError, match="does not serve --structure branch"):
        graphprune.Search(chain(), structure="branch", sparsity=0.5, max_steps=5)


# -- inputs --------------------------------------------------------------------------------------------


def test_feeds_of_data(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    data = images(23)["x"]
    np.savez(path, x=data)
    for batch, counts in (("n", [8, 8, 4]), (6, [6, 6, 6])):
        net = Net()
        model = load(net.model(net.head(net.stem()), batch=batch)).ir
        specs = input_specs(model)
        feeds = feeds_of(open_data(str(path), specs), specs, 20, 8, seed=3)
        assert [len(f["x"]) for f in feeds] == counts
        rows = np.concatenate([f["x"] for f in feeds]).reshape(sum(counts), -1)
        stored = {r.tobytes() for r in data.reshape(23, -1)}
        assert len({r.tobytes() for r in rows} & stored) == sum(counts)
        again = calibration_feeds(Reading(str(path), batch_size=8), model, 20, seed=3)
        assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(feeds, again, strict=True))
    net = Net()
    large = load(net.model(net.head(net.stem()), batch=40)).ir
    with pytest.raises(DataError, match="batches of 40"):
        calibration_feeds(path, large, 20)
    with pytest.raises(DataError, match="no array for input 'x'"):
        calibration_feeds([{"z": data}], large, 20)


def test_random_feeds() -> None:
    model = load(chain())
    analysis = analyze_model(model.ir, "net")
    feeds = random_feeds(model.ir, analysis.graph, 20, 8, seed=0)
    assert [f["x"].shape for f in feeds] == [(8, 3, 6, 6), (8, 3, 6, 6), (4, 3, 6, 6)]
    assert abs(np.concatenate([f["x"].reshape(-1) for f in feeds]).std() - 1) < 0.1
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])
    net = Net()
    fixed = load(net.model(net.head(net.stem()), batch=3))
    feeds = random_feeds(fixed.ir, analyze_model(fixed.ir, "net").graph, 7, 8, seed=0)
    assert [len(f["x"]) for f in feeds] == [3, 3, 3]


# -- the command line ----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, run: Run) -> None:
    source, out = tmp_path / "net.onnx", tmp_path / "small.onnx"
    onnx.save(chain(), source)
    np.savez(tmp_path / "images.npz", x=images(20)["x"])
    words = ["prune", source, "--structure", "branch", "--sparsity", "0.4", "-o", out]
    code, shown, told = run(*words, "--method", "finercut", "--data", tmp_path / "images.npz")
    assert code == 0, told
    plan = Plan.load(tmp_path / "small.plan.json")
    assert (plan.structure, plan.method, len(plan.branches)) == ("branch", "finercut", 2)
    assert all(f"{b['node']} without {b['removed']}" in shown for b in plan.branches)
    assert "residual branches" in shown
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "images.npz", "net.onnx", "small.onnx", "small.plan.json",
    ]  # fmt: skip
    assert run("verify", source, out)[0] == 0
    code, _, told = run(*words, "--force", "--method", "finercut")
    assert (code, "needs inputs" in told) == (2, True)
    code, _, told = run(*words, "--force", "--rounds", "3")
    assert (code, "does not train" in told) == (2, True)
    code, shown, told = run("analyze", source, "--structure", "branch")
    assert (code, "Residual branches" in shown) == (0, True)
    assert all(f"sum{i}" in shown for i in range(5))


def test_analysis_lists_what_prune_counts() -> None:
    model = load(chain())
    analysis = analyze_model(model.ir, "net")
    rows = analyze_branches(model, analysis)
    assert set(rows[0]) == {"node", "value", "removed", "params", "macs", "projection"}
    result = graphprune.prune(model, structure="branch", sparsity=0.4)
    assert result.analysis.branches is not None
    assert sum(b["gone"] for b in result.analysis.branches) == 2
    assert isinstance(result.model.ir, ir.Model)
