"""Blocks and N:M patterns in one shot: what is zeroed, what may go besides, counted on the written file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphprune
from graphprune.errors import BudgetError, OptionError
from tests.marks import slow
from tests.random_graphs import Recipe, build, recipes
from tests.real_models import shared_models

ROOT = Path(__file__).resolve().parents[1]
RESNET = ROOT / "sample_models" / "resnet20_cifar10.onnx"
EXACT = 1e-5


def weights_of(path: Path) -> dict[str, np.ndarray]:
    """Initializers and Constant nodes of a file, by name."""
    graph = onnx.load(path).graph
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        for a in node.attribute:
            if node.op_type == "Constant" and a.name == "value":
                found[node.output[0]] = numpy_helper.to_array(a.t)
    return found


def kept_weights(shape: Sequence[int], entry: dict[str, Any]) -> np.ndarray:
    """A plan's ``blocks`` entry written out, position by position: bool of ``shape``."""
    grid = [-(-n // b) for n, b in zip(shape, entry["shape"], strict=True)]
    places = np.meshgrid(
        *(np.arange(n) // b for n, b in zip(shape, entry["shape"], strict=True)), indexing="ij"
    )
    return np.isin(np.ravel_multi_index(tuple(places), grid), entry["kept"])


def check_blocks(path: Path, out: Path, sparsity: float, **words: Any) -> graphprune.PruneResult:
    """Prune, write, and count on the written file."""
    result = graphprune.prune(path, structure="block", sparsity=sparsity, **words)
    result.save(out, force=True)
    plan = result.plan
    assert plan.fidelity["holds"]
    assert plan.fidelity["max_rel_diff"] <= EXACT or plan.fidelity["tolerance"] > 1e-4
    before, after = weights_of(path), weights_of(out)
    total = zeroed = 0
    for name, entry in plan.blocks.items():
        mask = kept_weights(before[name].shape, entry)
        total += mask.size
        zeroed += int(mask.size - mask.sum())
        cut = plan.removed.get(name, {})
        expected = np.where(mask, before[name], 0)
        for axis, indices in cut.items():
            expected = np.delete(expected, indices, int(axis))
        if name in after:  # a weight may go whole
            np.testing.assert_array_equal(after[name], expected)
    largest = max(int(np.prod(e["shape"])) for e in plan.blocks.values())
    assert zeroed >= sparsity * total - 1e-6
    assert zeroed - sparsity * total < largest
    assert plan.budget["achieved"] == pytest.approx(zeroed / total)
    return result


def check_rows(path: Path, out: Path, **words: Any) -> graphprune.PruneResult:
    """The same for 2:4 along the axis that the plan names."""
    result = graphprune.prune(path, structure="nm", nm="2:4", **words)
    result.save(out, force=True)
    assert result.fidelity.max_rel_diff <= EXACT or result.fidelity.tolerance > 1e-4
    before, after = weights_of(path), weights_of(out)
    for name, entry in result.plan.patterns.items():
        old, new = (groups_of_four(w[name], entry["axis"]) for w in (before, after))
        assert ((new != 0).sum(1) <= 2).all()
        np.testing.assert_array_equal(new[new != 0], old[new != 0])
        largest = -np.sort(-np.abs(old), axis=1)[:, :2]
        np.testing.assert_array_equal(-np.sort(-np.abs(new), axis=1)[:, :2], largest)
    return result


def groups_of_four(array: np.ndarray, axis: int) -> np.ndarray:
    """Every four consecutive numbers along an axis: ``[groups, 4]``, with zeros beyond the end."""
    moved = np.moveaxis(array, axis, -1)
    padded = np.concatenate(
        [moved, np.zeros((*moved.shape[:-1], -moved.shape[-1] % 4), moved.dtype)], axis=-1
    )
    return padded.reshape(-1, 4)


# -- real networks ------------------------------------------------------------------------------------------

SIZES = {"NVIDIA__attention_head": {"input": (100, 100, 100)}}
TOO_SMALL = ("microsoft__image_classifier32",)
LARGE = ("microsoft__fns_candy", "NVIDIA__attention_head")
SAMPLES = [
    "resnet20",
    "mobilenet_v2",
    "yolov5",
    "yolov5_raw",
    "bisenet_v2",
    "bisenet_v2_pooled",
    "vit",
    "swin",
]


@pytest.mark.parametrize(
    "name", slow(SAMPLES, {"yolov5", "yolov5_raw", "bisenet_v2_pooled", "mobilenet_v2", "vit"})
)
def test_samples(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="sample models are exported from PyTorch")
    import sample_models

    path = sample_models.export(name, tmp_path / f"{name}.onnx")
    out = tmp_path / "out.onnx"
    for sparsity in (0.3, 0.5, 0.7):
        check_blocks(path, out, sparsity)
    assert graphprune.verify(path, out).patterned
    check_rows(path, out)


SLOW = ("fns_candy", "PAN_mobilenet")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * any(word in p.stem for word in SLOW))
        for p in shared_models()
    ],
)
def test_third_party_files(path: Path, tmp_path: Path) -> None:
    out, shapes = tmp_path / "out.onnx", SIZES.get(path.stem, {})
    if path.stem in TOO_SMALL:
        with pytest.raises(BudgetError, match="no weight holds a block of 16x8x1x1"):
            check_blocks(path, out, 0.5)
    else:
        check_blocks(path, out, 0.5, input_shapes=shapes)
    if path.stem not in LARGE:  # one structure is enough for the time it takes
        check_rows(path, out)


@pytest.mark.skipif(bool(shared_models()), reason="the folder of third-party models is present")
def test_third_party_files_are_absent() -> None:
    pytest.skip("no ../shared/models beside the repository: third-party files are not tested")


# -- what may go besides -----------------------------------------------------------------------------------


def network(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: Sequence[int]
) -> onnx.ModelProto:
    """x ``shape`` -> y."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def two_convolutions(
    rng: np.random.Generator, bias: np.ndarray, channels: int = 24, activation: str = "Relu"
) -> onnx.ModelProto:
    """x [1, 4, 6, 6] -> conv a (bias) -> activation -> conv b -> y."""
    nodes = [
        helper.make_node("Conv", ["x", "a", "bias"], ["u"]),
        helper.make_node(activation, ["u"], ["v"]),
        helper.make_node("Conv", ["v", "b"], ["y"]),
    ]
    weights = {
        "a": rng.standard_normal((channels, 4, 3, 3)),
        "bias": bias,
        "b": rng.standard_normal((4, channels, 3, 3)),
    }
    return network(nodes, weights, (1, 4, 6, 6))


def with_weights(model: onnx.ModelProto, change: dict[str, tuple[Any, float]]) -> onnx.ModelProto:
    """Entries of weights, multiplied."""
    for tensor in model.graph.initializer:
        if tensor.name in change:
            where, factor = change[tensor.name]
            array = numpy_helper.to_array(tensor).copy()
            array[where] *= factor
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def test_channels_that_nobody_reads_go() -> None:
    """Eight inputs of b are weak; once their blocks are zero, the channels of a behind them are useless."""
    rng = np.random.default_rng(0)
    model = with_weights(two_convolutions(rng, np.ones(24)), {"b": (np.s_[:, 8:16], 1e-3)})
    result = graphprune.prune(model, structure="block", block="4x8x3x3", sparsity=1 / 3, max_layer_sparsity=1)
    assert result.plan.freed == {"channels": 8, "params": 8 * (4 * 9 + 1) + 8 * 4 * 9}
    assert result.plan.removed["b"] == {"1": list(range(8, 16))}
    assert result.plan.fidelity["holds"]
    assert result.layouts["b"].kept.shape == (1, 2, 1, 1)
    assert result.layouts["b"].kept.all()


@pytest.mark.parametrize(
    ("bias", "activation", "goes"),
    [(-1.0, "Relu", 8), (1.0, "Relu", 0), (0.0, "Tanh", 8), (0.0, "Sigmoid", 0)],
)
def test_channels_without_weights_go_where_they_are_zero(bias: float, activation: str, goes: int) -> None:
    """A filter of zeros still sends its bias on; only what is 0 behind the activation can go exactly."""
    rng = np.random.default_rng(0)
    model = two_convolutions(rng, np.full(24, bias), activation=activation)
    model = with_weights(model, {"a": (np.s_[8:16], 1e-3)})
    result = graphprune.prune(model, structure="block", block="8x4x3x3", sparsity=1 / 3, max_layer_sparsity=1)
    assert result.plan.freed["channels"] == goes
    assert result.plan.fidelity["holds"]
    assert result.plan.fidelity["max_rel_diff"] <= EXACT


def test_channels_stay_where_a_quantised_weight_reads_them() -> None:
    """Channels are 0 where one convolution reads them, and 1 where another does, whose weights are quantised."""
    rng = np.random.default_rng(0)
    a, shift = rng.standard_normal((24, 4, 1, 1)), np.ones((1, 24, 1, 1))
    a[8:16] *= 1e-3
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["u"]),
        helper.make_node("Conv", ["u", "b"], ["v"]),
        helper.make_node("Add", ["u", "shift"], ["w"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["c"]),
        helper.make_node("Conv", ["w", "c"], ["z"]),
        helper.make_node("Add", ["v", "z"], ["y"]),
    ]
    weights = {"a": a, "b": rng.standard_normal((1, 24, 1, 1)), "shift": shift, "scale": np.ones(())}
    model = network(nodes, weights, (1, 4, 6, 6))
    model.graph.initializer.append(numpy_helper.from_array(rng.integers(1, 9, (1, 24, 1, 1), np.int8), "q"))
    result = graphprune.prune(model, structure="block", block="8x4", sparsity=1 / 3, max_layer_sparsity=1)
    assert result.plan.freed["channels"] == 0
    assert result.plan.fidelity["holds"]


@pytest.mark.parametrize("operator", ["LayerNormalization", "ReduceMean"])
def test_channels_stay_where_statistics_count_them(operator: str) -> None:
    """A channel of 0 still counts in a mean, also where --allow-inexact lets whole channels cross it."""
    rng = np.random.default_rng(0)
    a, scale = rng.standard_normal((24, 20)), np.ones(24)
    a[8:16] *= 1e-3
    scale[8:16] = 0
    nodes = [helper.make_node("MatMul", ["x", "turned"], ["u"])]
    if operator == "LayerNormalization":
        nodes += [helper.make_node("LayerNormalization", ["u", "scale"], ["v"])]
    else:
        nodes += [
            helper.make_node("ReduceMean", ["u"], ["mean"], axes=[1]),
            helper.make_node("Mul", ["u", "mean"], ["v"]),
        ]
    nodes += [helper.make_node("MatMul", ["v", "b"], ["y"])]
    weights = {"turned": a.T, "scale": scale, "b": rng.standard_normal((24, 4))}
    model = network(nodes, weights, (3, 20))
    words = {"block": "8x4", "sparsity": 1 / 3, "max_layer_sparsity": 1}
    result = graphprune.prune(model, structure="block", allow_inexact=True, **words)
    assert result.plan.freed["channels"] == 0
    assert result.plan.fidelity["holds"]


@pytest.mark.parametrize(("multiple_of", "first", "goes"), [(None, 4, 8), (8, 4, 0), (8, 8, 8), (16, 8, 0)])
def test_only_whole_blocks_of_channels_go(multiple_of: int | None, first: int, goes: int) -> None:
    """Eight channels of b are unread; blocks of 4 begin at every fourth, multiples of 8 at every eighth."""
    model = two_convolutions(np.random.default_rng(0), np.ones(24))
    weak = {"b": (np.s_[:, first : first + 8], 1e-3), "a": (np.s_[:], 100)}
    words = {"block": "4x4x3x3", "sparsity": 1 / 6, "max_layer_sparsity": 1, "allocation": "global"}
    result = graphprune.prune(with_weights(model, weak), structure="block", multiple_of=multiple_of, **words)
    assert result.plan.freed["channels"] == goes
    assert result.plan.removed == (
        {
            "a": {"0": list(range(first, first + 8))},
            "bias": {"0": list(range(first, first + 8))},
            "b": {"1": list(range(first, first + 8))},
        }
        if goes
        else {}
    )
    assert result.plan.fidelity["holds"]


def test_excluded_weights_lose_nothing() -> None:
    rng = np.random.default_rng(0)
    model = with_weights(two_convolutions(rng, np.ones(24)), {"b": (np.s_[:, 8:16], 1e-3)})
    result = graphprune.prune(
        model, structure="block", block="4x8x3x3", sparsity=1 / 3, exclude=["a"], max_layer_sparsity=1
    )
    assert result.plan.freed["channels"] == 0
    assert set(result.plan.blocks) == {"b"}


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(recipes(), st.integers(0, 2**20))
def test_any_network(recipe: Recipe, seed: int) -> None:
    """Random networks, blocks and budgets: proved, counted, and never refused for a bug of ours."""
    rng = np.random.default_rng(seed)
    block = ("16x8x1x1", "4x4x1x1", "2x2", "1x1x1x1", "-1x1x-1x-1", "3x2x2x2")[int(rng.integers(6))]
    words: dict[str, Any] = {
        "structure": "block",
        "block": block,
        "sparsity": float(rng.choice([0.2, 0.5, 0.8])),
        "max_layer_sparsity": float(rng.choice([0.9, 1.0])),
        "allocation": str(rng.choice(["uniform", "global"])),
        "method": str(rng.choice(["magnitude", "random"])),
    }
    if rng.random() < 0.3:
        words = {
            "structure": "nm",
            "nm": str(rng.choice(["2:4", "1:2"])),
            "nm_axis": str(rng.choice(["input", "output"])),
        }
    try:
        result = graphprune.prune(build(recipe), **words, seed=seed % 7)
    except (BudgetError, OptionError):
        return
    assert result.plan.fidelity["holds"]
    onnx.checker.check_model(result.model.to_onnx())
    arrays = {t.name: numpy_helper.to_array(t) for t in result.model.to_onnx().graph.initializer}
    for name, layout in result.layouts.items():
        if name in arrays:
            assert arrays[name].shape == layout.shape


# -- how weights are cut ---------------------------------------------------------------------------------


def matrices(rng: np.random.Generator) -> onnx.ModelProto:
    """MatMul with [inputs, outputs] = [20, 12], then Gemm with transB and [10, 12]."""
    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["u"], name="first"),
        helper.make_node("Gemm", ["u", "g"], ["y"], transB=1, name="second"),
    ]
    weights = {"m": rng.standard_normal((20, 12)), "g": rng.standard_normal((10, 12))}
    return network(nodes, weights, (3, 20))


def test_matrices_are_cut_in_their_own_orientation() -> None:
    result = graphprune.prune(
        matrices(np.random.default_rng(0)), structure="block", block="4x8", sparsity=0.4
    )
    assert result.plan.blocks["m"]["shape"] == [8, 4]  # stored [inputs, outputs]
    assert result.plan.blocks["g"]["shape"] == [4, 8]  # stored [outputs, inputs]
    report = graphprune.analyze(matrices(np.random.default_rng(0)), structure="block", block="4x8").patterns
    assert report is not None
    rows = {w["name"]: w for w in report["weights"]}
    assert rows["m"]["grid"] == [3, 3]
    assert rows["m"]["partial"] == 3
    assert rows["m"]["edge_waste"] == pytest.approx(1 - 240 / (9 * 32), abs=1e-4)
    assert rows["g"]["grid"] == [3, 2]


@pytest.mark.parametrize(("axis", "expected"), [("input", {"m": 0, "g": 1}), ("output", {"m": 1, "g": 0})])
def test_groups_lie_along_the_axis_that_is_asked_for(axis: str, expected: dict[str, int]) -> None:
    result = graphprune.prune(matrices(np.random.default_rng(0)), structure="nm", nm="1:2", nm_axis=axis)
    assert {n: e["axis"] for n, e in result.plan.patterns.items()} == expected
    for tensor in result.model.to_onnx().graph.initializer:
        rows = np.moveaxis(numpy_helper.to_array(tensor), expected[tensor.name], -1).reshape(-1, 2)
        assert ((rows != 0).sum(1) == 1).all()


def test_tensorrt_reads_2_to_4_along_c_for_each_k_r_s() -> None:
    """[K, C, R, S]: of four consecutive input channels two are not zero, at every kernel position."""
    result = graphprune.prune(RESNET, structure="nm", nm="2:4")
    found = 0
    for tensor in result.model.to_onnx().graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim != 4 or array.shape[1] % 4:
            continue
        k, c, r, s = array.shape
        counts = (array.reshape(k, c // 4, 4, r, s) != 0).sum(2)
        assert (counts == 2).all()
        found += r == 3
    assert found == 18


def test_ratios_and_allocation() -> None:
    def sparsity(result: graphprune.PruneResult) -> dict[str, float]:
        plan = result.plan
        shapes = {t.name: tuple(t.dims) for t in onnx.load(RESNET).graph.initializer}
        return {n: 1 - float(kept_weights(shapes[n], e).mean()) for n, e in plan.blocks.items()}

    uniform = sparsity(graphprune.prune(RESNET, structure="block", sparsity=0.5))
    assert max(uniform.values()) - min(uniform.values()) < 0.06
    free = sparsity(graphprune.prune(RESNET, structure="block", sparsity=0.5, allocation="global"))
    assert max(free.values()) - min(free.values()) > 0.2
    fixed = graphprune.prune(RESNET, structure="block", sparsity=0.5, ratios={"stages.1.*.weight": 0.25})
    found = sparsity(fixed)
    assert fixed.plan.budget["achieved"] == pytest.approx(0.5, abs=0.001)
    assert all(v == pytest.approx(0.25, abs=0.02) for n, v in found.items() if n.startswith("stages.1"))
    with pytest.raises(BudgetError, match="cannot be reached with these --ratio"):
        graphprune.prune(RESNET, structure="block", sparsity=0.9, ratios={"stages.2.*.weight": 0.1})


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        ({"structure": "blok", "sparsity": 0.5}, OptionError, "did you mean 'block'"),
        ({"structure": "block", "sparsity": 0.5, "block": "16xA"}, OptionError, "not understood"),
        (
            {"structure": "block", "sparsity": 0.5, "block": "999x999"},
            BudgetError,
            "no weight holds a block of 999x999",
        ),
        ({"structure": "block", "params": 0.5}, OptionError, "takes --sparsity"),
        ({"structure": "block"}, OptionError, "give exactly one"),
        ({"structure": "block", "sparsity": 0.99}, BudgetError, "at most 0.97"),
        ({"structure": "block", "sparsity": 0.5, "method": "bn-scale"}, OptionError, "scores whole channels"),
        (
            {"structure": "block", "sparsity": 0.5, "only": ["nosuch"]},
            OptionError,
            "no node or weight name matches",
        ),
        (
            {"structure": "block", "sparsity": 0.5, "max_layer_sparsity": 2.0},
            OptionError,
            "give a share above 0",
        ),
        ({"structure": "nm", "sparsity": 0.5}, OptionError, "N:M fixes the share"),
        ({"structure": "nm", "nm": "4:2"}, OptionError, "not understood"),
        ({"structure": "nm", "nm": "2:300"}, OptionError, "give at most 256"),
        ({"structure": "nm", "nm": "64:128"}, BudgetError, "no weight has 128 inputs"),
        ({"structure": "nm", "nm_axis": "row"}, OptionError, "use one of input, output"),
        ({"structure": "nm", "ratios": {"*": 0.5}}, OptionError, "--ratio does not go with"),
    ],
)
def test_bad_words(words: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        graphprune.prune(RESNET, **words)


def test_small_weights_are_named_and_left_dense() -> None:
    result = graphprune.prune(RESNET, structure="block", sparsity=0.5)
    assert "stem.0.0.weight" not in result.plan.blocks
    assert any(
        "too small for a block of 16x8x1x1" in n and "stem.0.0.weight" in n for n in result.analysis.notes
    )


@pytest.mark.parametrize(("name", "number"), [("block", 0), ("nm", 0)])
def test_verify_counts_the_zeros_of_the_file(name: str, number: int, tmp_path: Path) -> None:
    """A single weight where the plan says zero is found, and named."""
    out = tmp_path / "out.onnx"
    words = {"structure": name, "sparsity": 0.5} if name == "block" else {"structure": name}
    graphprune.prune(RESNET, **words).save(out)
    assert graphprune.verify(RESNET, out).patterned > 15
    model = onnx.load(out)
    (tensor,) = (t for t in model.graph.initializer if t.name == "stages.0.0.body.0.0.weight")
    array = numpy_helper.to_array(tensor).copy()
    array[tuple(np.argwhere(array == 0)[0])] = 1e-30
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, out)
    found = graphprune.verify(RESNET, out)
    assert not found.holds
    assert "'stages.0.0.body.0.0.weight' has" in found.message
