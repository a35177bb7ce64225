"""Targets: their TOML, every check on files that fit and files that do not, and the command ``check``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run, small_network
from onnx import TensorProto, helper, numpy_helper
from real_models import shared_models

import graphprune
from graphprune.errors import OptionError
from graphprune.plan import Plan, plan_path
from graphprune.targets.findings import CheckReport, Finding
from graphprune.targets.target import Target, defaults, find_target, shipped_targets

BLOCK = Target("npu", block="16x8x1x1")
NM = Target("gpu", nm="2:4")

# -- models -------------------------------------------------------------------------------------------


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    channels: int,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """``x`` [1, channels, 8, 8] (or [2, channels] for matrices) -> ``nodes`` -> ``y``."""
    matrix = nodes[-1].op_type in ("Gemm", "MatMul")
    shape = [2, channels] if matrix else [1, channels, 8, 8]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    return model


def one_layer(
    weight: np.ndarray,
    op: str = "Conv",
    metadata: Mapping[str, str] | None = None,
    **attributes: int,
) -> onnx.ModelProto:
    """A model of one contraction ``layer`` with the weight ``w``."""
    group = attributes.get("group", 1)
    channels = {
        "Conv": weight.shape[1] * group if weight.ndim > 2 else 0,
        "ConvTranspose": weight.shape[0],
        "Gemm": weight.shape[1 if attributes.get("transB") else 0],
        "MatMul": weight.shape[0],
    }[op]
    node = helper.make_node(op, ["x", "w"], ["y"], "layer", **attributes)
    return model_of([node], {"w": weight.astype(np.float32)}, channels, metadata)


def dense(*shape: int) -> np.ndarray:
    """Weights without a zero."""
    return np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(np.float32)


def two_of_four(array: np.ndarray, axis: int | None) -> np.ndarray:
    """Two of every four along ``axis`` (None: in row-major order), chosen by lot, become zero."""
    if axis is None:
        return two_of_four(array.reshape(-1), 0).reshape(array.shape)
    moved = np.moveaxis(array, axis, -1)
    whole = -(-moved.shape[-1] // 4) * 4
    lots = np.random.default_rng(7).random((*moved.shape[:-1], whole // 4, 4))
    kept = (lots.argsort(axis=-1) < 2).reshape(*moved.shape[:-1], whole)[..., : moved.shape[-1]]
    return np.moveaxis(moved * kept, -1, axis)


def without_blocks(
    array: np.ndarray, rows: int = 16, columns: int = 8, shift: int = 0, every: int = 2
) -> np.ndarray:
    """One of ``every`` blocks of the first two axes becomes zero; the grid begins ``shift`` rows later."""
    i = (np.arange(array.shape[0]) - shift) // rows
    j = np.arange(array.shape[1]) // columns
    kept = (i[:, None] + j) % every != 0
    return array * kept.reshape(*kept.shape, *[1] * (array.ndim - 2))


def failures(model: onnx.ModelProto | Path, target: Target | str) -> list[tuple[str, str]]:
    """Rule and name of what fails."""
    return [(f.rule, f.name) for f in graphprune.check(model, target).failures]


def notes(model: onnx.ModelProto, target: Target | str) -> list[str]:
    return [f.text for f in graphprune.check(model, target).notes]


# -- target files -------------------------------------------------------------------------------------


def test_shipped_targets() -> None:
    assert shipped_targets() == ["cpu-ort", "npu-16x8", "tensorrt-2to4"]
    npu, gpu, cpu = (find_target(n) for n in ("npu-16x8", "tensorrt-2to4", "cpu-ort"))
    assert all(t.description for t in (npu, gpu, cpu))
    assert npu.block_sizes == (16, 8, 1, 1)
    assert npu.lacks == ("ReduceMean",)
    assert gpu.nm_sizes == (2, 4)
    assert gpu.reads == ("dense-zeros",)
    assert defaults(npu) == {
        "structure": "block",
        "block": "16x8x1x1",
        "multiple_of": 16,
        "format": "dense-zeros",
    }
    assert defaults(gpu) == {
        "structure": "nm",
        "nm": "2:4",
        "nm_axis": "input",
        "format": "dense-zeros",
    }
    assert defaults(cpu) == {"structure": "channel", "multiple_of": 16}


def test_a_target_file(tmp_path: Path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text('block = "8x-1"\nmultiple-of = 4\nlacks = ["Gelu", "com.acme::Op"]\n')
    target = find_target(path)
    assert (target.name, target.block_sizes) == ("chip", (8, -1, 1, 1))
    assert (target.multiple_of, target.lacks) == (4, ("Gelu", "com.acme::Op"))
    assert defaults(target) == {"multiple_of": 4}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blocks = '16x8'", ["unknown key 'blocks'", "'block'"]),
        ("block = '0x8'", ["block = '0x8'", "16x8x1x1"]),
        ("block = '16'", ["block = '16'"]),
        ("block = '-2x8'", ["block = '-2x8'"]),
        ("block = '16x8x1x1x1x1'", ["16x8x1x1"]),
        ("nm = '4:2'", ["nm = '4:2'", "2:4"]),
        ("nm = '4:4'", ["2:4"]),
        ("nm_axis = 'inputs'", ["nm_axis = 'inputs'", "did you mean 'input'"]),
        ("structure = 'blok'", ["did you mean 'block'"]),
        ("structure = 'block'", ["needs block"]),
        ("structure = 'nm'", ["needs nm"]),
        ("multiple_of = 0", ["multiple_of = 0", "from 1"]),
        ("multiple_of = 2.5", ["multiple_of = 2.5", "a whole number"]),
        ("multiple_of = true", ["a whole number"]),
        ("lacks = 3", ["lacks = 3", "a list of texts"]),
        ("lacks = ['']", ["name an operator"]),
        ("lacks = ['ReduceMeen']", ["ReduceMeen", "did you mean 'ReduceMean'"]),
        ("sparse_operators = ['Relu']", ["sparse_operators = 'Relu'", "Conv"]),
        ("sparse_grouped = 1", ["true or false"]),
        ("format = 'dense'", ["did you mean 'dense-zeros'"]),
        ("format = 'compact'\nreads = ['dense-zeros']", ["format = 'compact'", "reads"]),
        ("reads = []\nformat = 'compact'", ["reads"]),
        ("block = [", ["not a TOML file"]),
        ("[block]\nx = 1", ["a text in quotes"]),
    ],
)
def test_mistakes_in_a_target_file_are_one_sentence(
    run: Run, model_file: Path, text: str, words: list[str]
) -> None:
    path = model_file.with_name("chip.toml")
    path.write_text(text)
    code, out, err = run("check", model_file, "--target", path)
    assert (code, out) == (2, "")
    assert err.startswith("graphprune: ")
    assert err.count("\n") == 1
    assert "chip" in err
    for word in words:
        assert word in err


def test_unknown_and_unreadable_targets(run: Run, model_file: Path) -> None:
    folder = model_file.parent
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (folder / "folder.toml").mkdir()
    for name, word in [
        ("npu-16x9", "did you mean 'npu-16x8'"),
        (folder / "none.toml", "No such file"),
        (folder / "binary.toml", "not a TOML file"),
        (folder / "folder.toml", "directory"),
    ]:
        code, out, err = run("check", model_file, "--target", name)
        assert (code, out) == (2, "")
        assert word in err
        assert err.count("\n") == 1


# -- operators ----------------------------------------------------------------------------------------


def test_missing_operators_are_named_by_node() -> None:
    target = Target("chip", lacks=("GlobalAveragePool", "Relu"))
    assert failures(small_network(), target) == [
        ("operator", "relu1"),
        ("operator", "relu2"),
        ("operator", "mean"),
    ]
    assert failures(small_network(), Target("chip", lacks=("ReduceMean",))) == []


def test_operators_of_other_domains_and_sub_graphs() -> None:
    custom = small_network(head="Mystery")
    assert failures(custom, Target("chip", lacks=("example.com::Mystery",))) == [("operator", "custom")]
    relu = helper.make_node("Relu", ["x"], ["inner"], "hidden")
    branch = helper.make_graph(
        [relu], "branch", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    )
    node = helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=branch)
    model = model_of([node], {"c": np.array(True)}, 4)
    assert Counter(failures(model, Target("chip", lacks=("Relu",)))) == {("operator", "hidden"): 2}


# -- N:M ----------------------------------------------------------------------------------------------

READ_ALONG_INPUTS = [
    ("Conv", (32, 16, 3, 3), 1, {}),
    ("Conv", (32, 16, 1, 1), 1, {}),
    ("Conv", (32, 8, 3, 3), 1, {"group": 4}),
    ("ConvTranspose", (16, 32, 3, 3), 0, {}),
    ("ConvTranspose", (16, 8, 2, 2), 0, {"group": 2}),
    ("Gemm", (32, 16), 1, {"transB": 1}),
    ("Gemm", (16, 32), 0, {}),
    ("MatMul", (16, 32), 0, {}),
]


@pytest.mark.parametrize(("op", "shape", "axis", "attributes"), READ_ALONG_INPUTS)
def test_nm_is_read_along_the_inputs(
    op: str, shape: tuple[int, ...], axis: int, attributes: dict[str, int]
) -> None:
    right = one_layer(two_of_four(dense(*shape), axis), op, **attributes)
    assert graphprune.check(right, NM).findings == ()
    wrong = one_layer(two_of_four(dense(*shape), 1 - axis), op, **attributes)
    assert failures(wrong, NM) == [("nm", "w")]
    assert failures(wrong, Target("gpu", nm="2:4", nm_axis="output")) == []
    assert failures(right, Target("gpu", nm="2:4", nm_axis="output")) == [("nm", "w")]


def test_row_major_groups_of_a_3x3_convolution_do_not_fit_tensorrt() -> None:
    """Groups over the kernel positions of ``[K, C, R, S]``: what a flattened weight gives."""
    weight = two_of_four(dense(16, 16, 3, 3), None)
    report = graphprune.check(one_layer(weight), "tensorrt-2to4")
    assert not report.ok
    assert "row-major" in report.failures[0].text
    counted = 0  # the verification loop of the TensorRT documentation, "Structured Sparsity"
    for k in range(16):
        for r in range(3):
            for s in range(3):
                for c in range(4):
                    counted += np.count_nonzero(weight[k, 4 * c : 4 * c + 4, r, s]) > 2
    assert f"{counted} of {16 * 9 * 4} groups" in report.failures[0].text


def test_one_group_too_full_is_found() -> None:
    weight = two_of_four(dense(16, 16, 3, 3), 1)
    weight[5, 4, 2, 1] = 1
    (note,) = notes(one_layer(weight), NM)
    assert "(1 of 576 groups)" in note
    claim = {"graphprune.structure": "nm", "graphprune.nm": "2:4", "graphprune.sparsity": '{"w": 0.5}'}
    assert failures(one_layer(weight, metadata=claim), NM) == [("nm", "w")]


@pytest.mark.parametrize(("inputs", "full", "crowded"), [(6, 2, 0), (7, 2, 0), (7, 3, 16), (3, 2, 0)])
def test_a_short_last_group_is_filled_with_zeros(inputs: int, full: int, crowded: int) -> None:
    weight = two_of_four(dense(16, inputs, 1, 1), 1)
    rest = inputs % 4
    weight[:, -rest:] = np.arange(rest)[None, :, None, None] < full
    found = notes(one_layer(weight), NM)
    assert len(found) == (crowded > 0)
    assert not crowded or f"({crowded} of" in found[0]


def test_nm_groups_end_where_a_conv_group_ends() -> None:
    weight = np.zeros((12, 4, 1, 1), np.float32)  # ConvTranspose: two groups of six inputs
    weight[4:8] = 1  # the last two inputs of the first, the first two of the second
    assert graphprune.check(one_layer(weight, "ConvTranspose", group=2), NM).findings == ()
    assert notes(one_layer(weight, "ConvTranspose"), NM)


def test_dense_weights_are_notes() -> None:
    report = graphprune.check(small_network(), NM)
    assert report.ok
    assert {f.name for f in report.notes} == {"conv1.weight", "conv2.weight", "fc.weight"}
    assert all(f.sentence.startswith("runs dense") for f in report.notes)


def test_scattered_zeros_are_no_pattern() -> None:
    rng = np.random.default_rng(0)
    for share in (0.5, 0.7, 0.95):
        weight = dense(32, 16, 3, 3) * (rng.random((32, 16, 3, 3)) > share)
        assert failures(one_layer(weight), NM) == []


def test_what_tensorrt_runs_dense() -> None:
    grouped = one_layer(two_of_four(dense(16, 8, 3, 3), 1), group=2)
    assert "grouped convolutions" in notes(grouped, "tensorrt-2to4")[0]
    turned = one_layer(two_of_four(dense(16, 8, 3, 3), 0), "ConvTranspose")
    assert "ConvTranspose" in notes(turned, "tensorrt-2to4")[0]
    for model in (grouped, turned):
        assert graphprune.check(model, "tensorrt-2to4").ok


def test_a_weight_behind_transpose_cast_and_8_bit_numbers() -> None:
    weight = two_of_four(dense(32, 16), 1)  # [N, K], turned to [K, N]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["y"], "layer"),
    ]
    stored = {"w": (weight * 50).astype(np.int8), "scale": np.float32(0.02)}
    assert graphprune.check(model_of(nodes, stored, 16), NM).findings == ()
    wrong = two_of_four(dense(32, 16), 0)
    stored["w"] = (wrong * 50).astype(np.int8)
    assert failures(model_of(nodes, stored, 16), NM) == [("nm", "w")]


# -- blocks -------------------------------------------------------------------------------------------


def recorded(structure: str = "block", block: str = "16x8x1x1", **sparsity: float) -> dict[str, str]:
    return {
        "graphprune.structure": structure,
        "graphprune.block": block,
        "graphprune.sparsity": json.dumps(sparsity),
    }


@pytest.mark.parametrize(
    ("op", "turned", "attributes"),
    [
        ("Conv", False, {}),
        ("Conv", False, {"group": 2}),
        ("ConvTranspose", True, {}),
        ("Gemm", False, {"transB": 1}),
        ("Gemm", True, {}),
        ("MatMul", True, {}),
    ],
)
def test_zero_blocks_on_the_grid(op: str, turned: bool, attributes: dict[str, int]) -> None:
    kernel = (3, 3) if "Conv" in op else ()
    weight = dense(64, 32, *kernel)

    def turn(array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1) if turned else array

    model = one_layer(turn(without_blocks(weight)), op, recorded(w=0.5), **attributes)
    assert graphprune.check(model, BLOCK).findings == ()
    model = one_layer(turn(without_blocks(weight, shift=3)), op, recorded(w=0.5), **attributes)
    assert failures(model, BLOCK) == [("block", "w")]


@pytest.mark.parametrize(
    ("block", "fits"),
    [("16x8x1x1", True), ("32x8x1x1", True), ("16x8x3x3", True), ("64x32x1x1", True), ("-1x8x1x1", True),
     ("8x8x1x1", False), ("16x4x1x1", False), ("24x8x1x1", False), ("1x1x1x1", False)],
)  # fmt: skip
def test_the_recorded_block_is_made_of_the_targets(block: str, fits: bool) -> None:
    weight = without_blocks(dense(64, 32, 3, 3))
    model = one_layer(weight, metadata=recorded(block=block, w=0.5))
    assert graphprune.check(model, BLOCK).ok is fits


def test_zeros_by_chance_in_kept_blocks_are_fine() -> None:
    weight = without_blocks(dense(64, 32, 3, 3))
    weight[:, 3] = 0  # a dead input channel
    assert graphprune.check(one_layer(weight, metadata=recorded(w=0.55)), BLOCK).ok


def test_partial_blocks_at_the_edges_are_blocks() -> None:
    weight = dense(40, 12, 3, 3)
    weight[32:, 8:] = 0  # 8 x 4 of a block
    model = one_layer(weight, metadata=recorded(w=8 * 4 / (40 * 12)))
    assert graphprune.check(model, BLOCK).findings == ()


def test_the_plan_says_how_much_lies_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    weight = without_blocks(dense(64, 32, 3, 3), every=4)[16:]  # the first block of rows was removed
    onnx.save(one_layer(weight), path)
    kept = np.add.outer(np.arange(4), np.arange(4)) % 4 != 0
    numbers = np.flatnonzero(np.repeat(kept.reshape(-1), 9)).tolist()
    plan = Plan("0" * 64, "block", blocks={"w": {"shape": [16, 8, 1, 1], "kept": numbers}})
    plan.removed = {"w": {"0": list(range(16))}}
    plan_path(path).write_text(plan.to_json())
    assert graphprune.check(path, BLOCK).findings == ()

    onnx.save(one_layer(np.roll(weight, 2, axis=0)), path)
    (failure,) = graphprune.check(path, BLOCK).failures
    assert failure.rule == "block"
    assert "25.0% pruned" in failure.detail
    onnx.save(one_layer(weight), path)
    plan.blocks["w"]["shape"] = [8, 8, 1, 1]
    plan_path(path).write_text(plan.to_json())
    assert [f.detail for f in graphprune.check(path, BLOCK).failures] == ["8x8x1x1"]
    plan.blocks = {"w": {"kept": [0]}}
    plan_path(path).write_text(plan.to_json())
    assert [f.rule for f in graphprune.check(path, BLOCK).notes] == ["plan"]
    plan_path(path).write_text("{")
    assert [f.rule for f in graphprune.check(path, BLOCK).notes] == ["plan"]


def test_what_runs_dense_on_a_block_target() -> None:
    assert notes(one_layer(dense(64, 32, 3, 3)), BLOCK) == ["runs dense: no block of 16x8x1x1 is zero"]
    assert notes(one_layer(dense(8, 32, 3, 3)), BLOCK) == [
        "runs dense: smaller than one block of 16x8x1x1 (8x32x3x3)"
    ]
    assert "smaller" in notes(one_layer(dense(32, 1, 3, 3), group=32), BLOCK)[0]
    scattered = dense(64, 32, 3, 3) * (np.random.default_rng(1).random((64, 32, 3, 3)) > 0.5)
    assert "do not fill blocks" in notes(one_layer(scattered), BLOCK)[0]
    assert failures(one_layer(scattered), BLOCK) == []


# -- channels -----------------------------------------------------------------------------------------


def test_channel_counts() -> None:
    report = graphprune.check(small_network(), Target("chip", multiple_of=16))
    assert [(f.name, f.detail) for f in report.failures] == [("conv2", "24 channels, 8 too many")]
    assert report.failures[0].advice == "prune with --multiple-of 16"
    assert graphprune.check(small_network(), Target("chip", multiple_of=8)).findings == ()
    pruned = graphprune.prune(small_network(), sparsity=0.2, only=["conv2"], multiple_of=16)
    assert graphprune.check(pruned.model, Target("chip", multiple_of=16)).ok


def test_channels_that_pruning_cannot_align_are_notes() -> None:
    few = graphprune.check(small_network(), Target("chip", multiple_of=64))
    assert few.ok
    assert {f.name for f in few.notes} == {"conv1", "conv2"}
    fixed = graphprune.check(small_network(layer_norm=True), Target("chip", multiple_of=16))
    assert [(f.severity, f.name) for f in fixed.findings] == [("note", "conv2")]
    assert "statistics" in fixed.notes[0].sentence


# -- storage ------------------------------------------------------------------------------------------


def test_a_table_of_blocks() -> None:
    blocks = np.zeros((3, 16, 8), np.float32)
    blocks[1:] = dense(2, 16, 8)
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["g"], axis=0),  # [2, 2, 16, 8]
        helper.make_node("Transpose", ["g"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "shape"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"], "layer"),
    ]
    stored = {"table": blocks, "index": np.array([[0, 1], [2, 0]]), "shape": np.array([32, 16, 1, 1])}
    model = model_of(nodes, stored, 16, recorded(w=0.5))
    assert graphprune.check(model, BLOCK).findings == ()
    stored["index"] = np.array([[1, 1], [2, 2]])
    assert notes(model_of(nodes, stored, 16), BLOCK) == ["runs dense: no block of 16x8x1x1 is zero"]
    assert ("storage", "w") in failures(model, "tensorrt-2to4")


def test_sparse_initializers(tmp_path: Path) -> None:
    weight = two_of_four(dense(16, 16), 0)
    model = one_layer(weight, "MatMul")
    del model.graph.initializer[:]
    values = numpy_helper.from_array(weight[weight != 0], "w")
    indices = numpy_helper.from_array(np.flatnonzero(weight).astype(np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [16, 16]))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert failures(path, "tensorrt-2to4") == [("storage", "w")]
    assert graphprune.check(path, NM).findings == ()


# -- the file as a whole ------------------------------------------------------------------------------


def test_sparsity_that_the_target_does_not_skip_is_said() -> None:
    model = one_layer(without_blocks(dense(64, 32, 3, 3)), metadata=recorded(w=0.5))
    (note,) = notes(model, "cpu-ort")
    assert "--structure block" in note
    assert graphprune.check(model, "cpu-ort").ok


def test_damaged_metadata_claims_nothing() -> None:
    for text in ("{", "[1]", "3", ""):
        claim = recorded() | {"graphprune.sparsity": text, "graphprune.block": "x"}
        assert graphprune.check(one_layer(dense(64, 32, 3, 3), metadata=claim), BLOCK).ok


@pytest.fixture(scope="module")
def bisenets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """BiSeNetV2 as published, and with the paper's pooling."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")
    from sample_models.zoo import export

    folder = tmp_path_factory.mktemp("bisenet")
    published, pooled = (export(n, folder / f"{n}.onnx") for n in ("bisenet_v2", "bisenet_v2_pooled"))
    return published, pooled


def test_the_paper_replaces_reduce_mean(bisenets: tuple[Path, Path]) -> None:
    published, pooled = (graphprune.check(path, "npu-16x8") for path in bisenets)
    assert not published.ok
    missing = [f for f in published.failures if f.rule == "operator"]
    nodes = onnx.load(bisenets[0]).graph.node
    assert Counter(f.name for f in missing) == Counter(n.name for n in nodes if n.op_type == "ReduceMean")
    assert missing
    assert not [f for f in pooled.findings if f.rule == "operator"]


@pytest.mark.skipif(not shared_models(), reason="the third-party models are not beside the repository")
@pytest.mark.parametrize("path", shared_models(), ids=lambda path: path.stem)
def test_third_party_models(path: Path) -> None:
    """Nothing is invented: unpruned files fail by operators and channel counts only, each counted here."""
    proto = onnx.load(path, load_external_data=False)
    for name in shipped_targets():
        report = graphprune.check(path, name)
        assert {f.rule for f in report.failures} <= {"operator", "channels"}
        found = [f for f in report.failures if f.rule == "operator"]
        lacking = [n for n in proto.graph.node if n.op_type in find_target(name).lacks]
        assert len(found) == len(lacking)
        for finding in report.failures:
            if finding.rule == "channels":
                count = int(finding.detail.split()[0])
                assert count > 16
                assert count % 16
        if name == "tensorrt-2to4":
            assert report.ok
        json.dumps(report.to_dict(), allow_nan=False)


# -- the command --------------------------------------------------------------------------------------


def test_check_exit_codes_and_table(run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    chip = model_file.with_name("chip.toml")
    chip.write_text('multiple_of = 16\nlacks = ["GlobalAveragePool"]\n')
    code, out, err = run("check", model_file, "--target", chip)
    assert code == 1
    assert "Traceback" not in err
    for word in ("does not fit: 2 failures", "mean", "operator", "GlobalAveragePool", "conv2", "24 channels"):
        assert word in out
    code, out, _ = run("check", model_file, "--target", "tensorrt-2to4")
    assert code == 0
    assert "fits" in out
    assert "runs dense" in out
    assert "3: conv1.weight" in out


def test_check_json(run: Run, model_file: Path) -> None:
    expected = graphprune.check(model_file, "npu-16x8").to_dict()
    code, out, _ = run("check", model_file, "--target", "npu-16x8", "--json", "-")
    assert code == 1
    assert json.loads(out) == expected
    assert expected["ok"] is False
    assert set(expected["findings"][0]) == {"severity", "rule", "name", "sentence", "detail", "advice"}
    target = model_file.with_name("report.json")
    code, out, _ = run("check", model_file, "--target", "npu-16x8", "--json", target)
    assert "does not fit" in out
    assert json.loads(target.read_text()) == expected


def test_check_refuses_unusable_input(run: Run, model_file: Path) -> None:
    chip = model_file.with_name("chip.toml")
    chip.write_text("multiple_of = 16\n")
    for arguments in (
        ["none.onnx", "--target", "npu-16x8"],
        [chip, "--target", "npu-16x8"],
        [model_file],
        [model_file, "--target", "npu-16x8", "--json", model_file],
        [model_file, "--target", chip, "--json", chip],
    ):
        code, out, err = run("check", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("graphprune: ")
        assert err.count("\n") == 1
    assert chip.read_text() == "multiple_of = 16\n"


def test_the_report_puts_failures_first() -> None:
    note, fail = Finding("note", "nm", "a", "s"), Finding("fail", "nm", "b", "s", "d")
    report = CheckReport("m", "t", (note, fail))
    assert [f["name"] for f in report.to_dict()["findings"]] == ["b", "a"]
    assert (report.ok, report.failures, report.notes) == (False, (fail,), (note,))
    assert fail.text == "s (d)"
    with pytest.raises(OptionError, match="npu: block"):
        Target("npu", block="16")
