"""File formats: every one computes what the file with dense zeros computes, and can be read again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphprune
from graphprune import writing
from graphprune.errors import ModelError, OptionError
from graphprune.feeds import draw, input_specs
from graphprune.formats import Emitted, all_formats, emit, file_format
from graphprune.frontends.onnx import build_graph
from graphprune.layouts import BlockLayout, Layout, RowLayout
from graphprune.plan import Plan
from graphprune.running import computed_constants
from graphprune.writeback import stored_arrays, with_tensors
from tests.conftest import small_network
from tests.real_models import light_model, shared_models

RESNET = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"
FORMATS = ("dense-zeros", "compact", "sparse-initializer")

THIRD_PARTY = (
    "dog-qiuqiu__FastestDet", "Linzaer__ultraface_slim320_simp", "ShiqiYu__yunet_n_dynamic",
    "microsoft__cifar10_tutorial_cnn", "xboot__super_resolution_10", "microsoft__SqueezeNet_fp16",
    "Kahsolt__ch_ppocr_mobile_v2.0_cls_infer", "microsoft__test_model_1_no_opt", "jkflying__xfeat",
)  # fmt: skip
"""Initializers and Constant nodes, float32 and float16, opsets 8 to 17, fixed and dynamic sizes."""


# -- masked models made here, not by the code that is tested ------------------------------------------------


def block_layout(
    name: str, shape: tuple[int, ...], block: tuple[int, ...], share: float, seed: int
) -> BlockLayout:
    """Random blocks; ``share`` of them are dropped."""
    block = tuple(min(b, n) for b, n in zip(block, shape, strict=True))
    grid = tuple(math.ceil(n / b) for n, b in zip(shape, block, strict=True))
    return BlockLayout(name, shape, block, np.random.default_rng(seed).random(grid) >= share)


def zeroed(array: np.ndarray, layout: Layout) -> np.ndarray:
    """``array`` with the zeros of ``layout``, written down entry by entry."""
    out = array.copy()
    if isinstance(layout, BlockLayout):
        for position in np.argwhere(~layout.kept):
            out[tuple(slice(p * b, (p + 1) * b) for p, b in zip(position, layout.block, strict=True))] = 0
        return out
    lines = np.moveaxis(out, layout.axis, -1)  # a view: what is set here is set in out
    for start in range(0, lines.shape[-1], layout.of):
        group = lines[..., start : start + layout.of]
        rank = np.argsort(np.argsort(-np.abs(group.astype(np.float64)), axis=-1), axis=-1)
        group[rank >= layout.keep] = 0
    return out


def weights_of(model: ir.Model, smallest: int = 2) -> dict[str, np.ndarray]:
    """Stored float tensors that Conv, Gemm or MatMul read, of at least ``smallest`` axes."""
    found = {}
    for node in model.graph:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        for value in node.inputs:
            producer = None if value is None else value.producer()
            constant = producer is not None and producer.op_type == "Constant"
            if value is None or not (constant or (producer is None and value.const_value is not None)):
                continue
            array = stored_arrays(model, [value.name])[value.name]
            if array.ndim >= smallest and array.dtype.kind == "f":
                found[value.name] = array
    return found


def blocked(source: object, share: float = 0.7) -> tuple[ir.Model, dict[str, Layout]]:
    """A model whose weights lost a share of their 16 x 8 blocks."""
    model = graphprune.load(source).ir
    layouts: dict[str, Layout] = {}
    arrays = {}
    for seed, (name, array) in enumerate(weights_of(model).items()):
        block = (16, 8, *[1] * (array.ndim - 2))
        layouts[name] = block_layout(name, array.shape, block, share, seed)
        arrays[name] = zeroed(array, layouts[name])
    return with_tensors(model, arrays), layouts


def two_of_four(source: object) -> tuple[ir.Model, dict[str, Layout]]:
    """A model whose weights keep 2 of every 4 along axis 1."""
    model = graphprune.load(source).ir
    layouts: dict[str, Layout] = {n: RowLayout(n, a.shape, 1, 2, 4) for n, a in weights_of(model).items()}
    return with_tensors(model, {n: zeroed(a, layouts[n]) for n, a in weights_of(model).items()}), layouts


def feeds(model: ir.Model) -> dict[str, np.ndarray]:
    return draw(input_specs(model, build_graph(model), {})[-1], "normal", [0])


def run(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs in onnxruntime as users run it: optimised, so that constants are folded."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(bits(a) == bits(b) for a, b in zip(left, right, strict=True))


def rebuilt(emitted: Emitted) -> dict[str, np.ndarray]:
    """Every patterned weight as a reader of the written graph finds it."""
    loaded = graphprune.load(emitted.to_onnx()).ir
    stored = {n: v.const_value.numpy() for n, v in loaded.graph.initializers.items() if n in emitted.weights}
    return stored | computed_constants(loaded, [n for n in emitted.weights if n not in stored])


# -- the three formats --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet() -> tuple[ir.Model, dict[str, Layout]]:
    return blocked(RESNET)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_computes_what_dense_zeros_compute(name: str, resnet: tuple[ir.Model, dict]) -> None:
    model, layouts = resnet
    emitted = emit(model, layouts, name)
    onnx.checker.check_model(emitted.to_onnx(), full_check=name != "sparse-initializer")
    feed = feeds(model)
    assert same(run(emitted.to_onnx(), feed), run(ir.to_proto(model), feed))
    arrays = rebuilt(emitted)
    for weight, array in stored_arrays(model, layouts).items():
        assert bits(arrays[weight]) == bits(np.where(array == 0, np.float32(0), array)), weight


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_two_of_four(name: str) -> None:
    model, layouts = two_of_four(RESNET)
    emitted = emit(model, layouts, name)
    feed = feeds(model)
    assert same(run(emitted.to_onnx(), feed), run(ir.to_proto(model), feed))


def test_file_sizes(resnet: tuple[ir.Model, dict], tmp_path: Path) -> None:
    model, layouts = resnet
    size = {n: emit(model, layouts, n).save(tmp_path / f"{n}.onnx").stat().st_size for n in FORMATS}
    assert size["compact"] < 0.4 * size["dense-zeros"]
    assert size["sparse-initializer"] < 0.6 * size["dense-zeros"]


def test_the_source_is_left_as_it_is(resnet: tuple[ir.Model, dict]) -> None:
    model, layouts = resnet
    before = ir.to_proto(model).SerializeToString()
    for name in FORMATS:
        emit(model, layouts, name)
    assert ir.to_proto(model).SerializeToString() == before


def with_block_words(model: ir.Model) -> ir.Model:
    model = model.clone()
    model.metadata_props["graphprune.block"] = "16x8"
    return model


def test_metadata(resnet: tuple[ir.Model, dict]) -> None:
    model, layouts = resnet
    model = model.clone()
    model.metadata_props["author"] = "somebody"
    found = {p.key: p.value for p in emit(model, layouts, "compact", pattern="16x8").to_onnx().metadata_props}
    assert found["author"] == "somebody"
    assert found["graphprune.structure"] == "block"
    assert found["graphprune.block"] == "16x8"
    assert found["graphprune.format"] == "compact"
    sparsity = json.loads(found["graphprune.sparsity"])
    arrays = stored_arrays(model, layouts)
    assert sparsity == {n: round(float((a == 0).mean()), 4) for n, a in arrays.items()}
    model, layouts = two_of_four(RESNET)
    again = emit(emit(with_block_words(model), layouts).model, layouts).model.metadata_props
    assert again["graphprune.nm"] == "2:4"
    assert "graphprune.block" not in again
    assert emit(emit(model, layouts).model, {}).model.metadata_props == model.metadata_props
    assert "graphprune.structure" not in model.metadata_props


def test_negative_zeros_become_positive() -> None:
    """Masking by multiplication leaves -0.0 where a negative weight was."""
    model, layouts = blocked(small_network())
    arrays = stored_arrays(model, layouts)
    signed = {n: np.where(a == 0, np.float32(-0.0), a) for n, a in arrays.items()}
    for name in FORMATS:
        for array in rebuilt(emit(with_tensors(model, signed), layouts, name)).values():
            assert not np.signbit(array[array == 0]).any()


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'compact'"):
        emit(graphprune.load(small_network()).ir, {}, "compakt")
    assert set(all_formats()) == set(FORMATS)
    with pytest.raises(ValueError, match="already"):
        file_format("compact")(lambda *_: None)


def test_a_layout_of_another_model_is_refused() -> None:
    _, layouts = blocked(small_network())
    other = graphprune.load(small_network()).ir
    with pytest.raises(ModelError, match="not zero outside its kept blocks"):
        emit(other, layouts)
    rows = {"conv2.weight": RowLayout("conv2.weight", (24, 16, 3, 3), 1, 2, 4)}
    with pytest.raises(ModelError, match="more than 2 non-zeros in a group of 4"):
        emit(other, rows)
    wrong = {
        "conv1.weight": BlockLayout("conv1.weight", (16, 4, 3, 3), (16, 4, 3, 3), np.ones((1, 1, 1, 1), bool))
    }
    with pytest.raises(ModelError, match="has shape"):
        emit(other, wrong)


def test_nothing_patterned_is_written_as_it_is(tmp_path: Path) -> None:
    model = graphprune.load(small_network()).ir
    emitted = emit(model, {}, "compact")
    assert emitted.to_onnx() == graphprune.load(small_network()).to_onnx()
    emitted.save(tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


# -- compact: where weights come from and who reads them ---------------------------------------------------


def one_matmul(
    array: np.ndarray,
    *,
    opset: int = 17,
    ir_version: int = 8,
    constant: bool = False,
    listed: bool = False,
    output: bool = False,
    twice: bool = False,
    branch: bool = False,
) -> onnx.ModelProto:
    """``x @ w`` around one weight, with whatever makes it special."""
    elem = helper.np_dtype_to_tensor_dtype(array.dtype)
    rows, columns = array.shape
    tensor = numpy_helper.from_array(array, "w")
    nodes = [helper.make_node("Constant", [], ["w"], "make w", value=tensor)] if constant else []
    outputs = [helper.make_tensor_value_info("y", elem, [2, columns])]
    inputs = [helper.make_tensor_value_info("x", elem, [2, rows])]
    if branch:
        then = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["w/table"])],
            "then",
            [],
            [helper.make_tensor_value_info("w/table", elem, [2, columns])],
        )
        other = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["t"]), helper.make_node("Neg", ["t"], ["e"])],
            "else",
            [],
            [helper.make_tensor_value_info("e", elem, [2, columns])],
        )
        inputs.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
        nodes.append(helper.make_node("If", ["which"], ["y"], then_branch=then, else_branch=other))
    else:
        nodes.append(helper.make_node("MatMul", ["x", "w"], ["y"]))
    if twice:
        nodes.append(helper.make_node("MatMul", ["x", "w"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", elem, [2, columns]))
    if output:
        outputs.append(helper.make_tensor_value_info("w", elem, [rows, columns]))
    if listed:
        inputs.append(helper.make_tensor_value_info("w", elem, [rows, columns]))
    graph = helper.make_graph(nodes, "one", inputs, outputs, [] if constant else [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def block_array(dtype: type = np.float32, shape: tuple[int, int] = (50, 70)) -> tuple[np.ndarray, Layout]:
    rng = np.random.default_rng(3)
    layout = block_layout("w", shape, (16, 8), 0.75, 5)
    return zeroed((rng.standard_normal(shape) * 3).astype(dtype), layout), layout


CASES = {
    "initializer": {},
    "constant node": {"constant": True},
    "read twice": {"twice": True},
    "graph output": {"output": True},
    "constant and output": {"constant": True, "output": True},
    "read inside branches": {"branch": True},
    "constant read inside branches": {"branch": True, "constant": True},
    "old file, listed input": {"listed": True, "ir_version": 3, "opset": 8},
    "opset 7": {"opset": 7, "ir_version": 4},
    "opset 9": {"opset": 9, "ir_version": 4},
    "opset 10": {"opset": 10, "ir_version": 5},
    "opset 23": {"opset": 23, "ir_version": 11},
}


@pytest.mark.parametrize("name", FORMATS[1:])
@pytest.mark.parametrize("case", CASES)
def test_weights_in_unusual_places(case: str, name: str) -> None:
    array, layout = block_array()
    source = one_matmul(array, **CASES[case])
    emitted = emit(graphprune.load(source).ir, {"w": layout}, name)
    proto = emitted.to_onnx()
    onnx.checker.check_model(proto)
    if name == "compact":
        assert [n.op_type for n in proto.graph.node][:4] == ["Gather", "Transpose", "Reshape", "Slice"]
        assert proto.graph.node[3].output == ["w"]
        assert proto.ByteSize() < 0.6 * source.ByteSize()
        names = [o for n in proto.graph.node for o in n.output] + [i.name for i in proto.graph.initializer]
        assert len(set(names)) == len(names)
    feed = {"x": np.random.default_rng(0).standard_normal((2, 50)).astype(np.float32)}
    for which in (True, False) if "branch" in CASES[case] else (True,):
        if "branch" in CASES[case]:
            feed["which"] = np.array(which)
        assert same(run(proto, feed), run(source, feed))
    assert bits(rebuilt(emitted)["w"]) == bits(array)


def test_a_replaceable_weight_stays_dense_in_a_compact_file() -> None:
    """From IR version 4 on whoever runs the model may feed it, so its place in the interface stays."""
    array, layout = block_array()
    source = one_matmul(array, listed=True, ir_version=8)
    emitted = emit(graphprune.load(source).ir, {"w": layout}, "compact")
    assert [n.op_type for n in emitted.to_onnx().graph.node] == ["MatMul"]
    assert "whoever runs the model may replace them" in emitted.notes[0]
    x = np.ones((2, 50), np.float32)
    for name in FORMATS:
        proto = emit(graphprune.load(source).ir, {"w": layout}, name).to_onnx()
        assert same(run(proto, {"x": x}), run(source, {"x": x}))
        assert not run(proto, {"x": x, "w": 0 * array})[0].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", FORMATS)
def test_element_types(name: str, dtype: type, tmp_path: Path) -> None:
    """Read through Cast, because not every type has a MatMul."""
    array, layout = block_array(np.float32)
    array = np.abs(array).astype(dtype) if dtype is np.uint8 else array.astype(dtype)
    elem = helper.np_dtype_to_tensor_dtype(array.dtype)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "f"], ["y"]),
        ],
        "cast",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 50])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 70])],
        [numpy_helper.from_array(array, "w")],
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert source.graph.initializer[0].data_type == elem
    emitted = emit(graphprune.load(source).ir, {"w": layout}, name)
    feed = {"x": np.ones((2, 50), np.float32)}
    assert same(run(emitted.to_onnx(), feed), run(source, feed))
    assert bits(rebuilt(emitted)["w"]) == bits(array)
    if name != "sparse-initializer":
        found = openvino_outputs(emitted.save(tmp_path / "m.onnx"), feed)
        assert close(found, run(source, feed), 1e-5)


def test_types_that_gather_does_not_move_stay_dense() -> None:
    array, layout = block_array(ml_dtypes.float8_e4m3fn)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT)],
        "cast",
        [],
        [helper.make_tensor_value_info("f", TensorProto.FLOAT, [50, 70])],
        [numpy_helper.from_array(array, "w")],
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    for name in FORMATS:
        proto = emit(graphprune.load(source).ir, {"w": layout}, name).to_onnx()
        assert [n.op_type for n in proto.graph.node] == ["Cast"]
        assert [i.name for i in proto.graph.initializer] == ["w"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_shapes_and_blocks_round_trip(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 5))
    shape = tuple(data.draw(st.integers(1, 12 if rank < 4 else 6)) for _ in range(rank))
    block = tuple(data.draw(st.integers(1, n)) for n in shape)
    dtype = data.draw(st.sampled_from([np.float32, np.float16, np.float64, np.int8]))
    layout = block_layout("w", shape, block, data.draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])), 1)
    array = zeroed((np.random.default_rng(2).standard_normal(shape) * 9).astype(dtype), layout)
    array = np.where(array == 0, np.zeros((), dtype), array)
    node = helper.make_node("Cast", ["w"], ["y"], to=TensorProto.DOUBLE)
    graph = helper.make_graph(
        [node],
        "cast",
        [],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, shape)],
        [numpy_helper.from_array(array, "w")],
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    for name in FORMATS:
        emitted = emit(graphprune.load(source).ir, {"w": layout}, name)
        assert same(run(emitted.to_onnx(), {}), [array.astype(np.float64)])
        assert bits(rebuilt(emitted)["w"]) == bits(array)


# -- reading the files again -------------------------------------------------------------------------------


def block_plan(original: graphprune.Model, layouts: dict[str, Layout], weights: str) -> Plan:
    blocks = {
        n: {"shape": list(v.block), "kept": np.flatnonzero(v.kept).tolist()}
        for n, v in layouts.items()
        if isinstance(v, BlockLayout)
    }
    return Plan(original.sha256(), structure="block", weights=weights, blocks=blocks)


@pytest.mark.parametrize("weights", ["original", "trained"])
@pytest.mark.parametrize("name", FORMATS)
def test_verify_reads_every_format(name: str, weights: str, tmp_path: Path) -> None:
    """A trained file holds other numbers: verify takes them from it, rebuilt by its own nodes."""
    model, layouts = blocked(RESNET)
    if weights == "trained":
        model = with_tensors(model, {n: a * 1.25 for n, a in stored_arrays(model, layouts).items()})
    path = emit(model, layouts, name).save(tmp_path / "m.onnx")
    original = graphprune.load(RESNET)
    found = graphprune.verify(original, path, block_plan(original, layouts, weights))
    assert found.holds, found.message
    assert not found.vacuous
    if weights == "trained":
        wrong = graphprune.verify(original, path, block_plan(original, layouts, "original"))
        assert not wrong.holds


@pytest.mark.parametrize("name", FORMATS)
def test_analyze_and_prune_read_every_format(name: str, tmp_path: Path) -> None:
    model, layouts = blocked(RESNET)
    path = emit(model, layouts, name).save(tmp_path / "m.onnx")
    result = graphprune.prune(path, sparsity=0.3)
    assert result.fidelity.holds
    assert graphprune.load(path).ir.metadata_props["graphprune.format"] == name


def test_sparse_files_are_read_as_dense_ones(tmp_path: Path) -> None:
    model, layouts = two_of_four(RESNET)
    path = emit(model, layouts, "sparse-initializer").save(tmp_path / "m.onnx")
    loaded = graphprune.load(path)
    assert "22 sparse initializers were read as dense ones" in loaded.notes[0]
    arrays = stored_arrays(loaded.ir, layouts)
    for weight, array in stored_arrays(model, layouts).items():
        assert (arrays[weight] == array).all()
    proto = onnx.load(path)
    before = proto.SerializeToString()
    graphprune.load(proto)
    assert proto.SerializeToString() == before


def test_sparse_files_that_are_larger_say_so() -> None:
    few, layouts = blocked(RESNET, 0.2)
    (note,) = emit(few, layouts, "sparse-initializer").notes
    assert "of the patterned weights are zero" in note
    assert "MB where dense tensors take" in note
    many, layouts = blocked(RESNET, 0.7)
    assert emit(many, layouts, "sparse-initializer").notes == []


def sparse_file(**change: object) -> onnx.ModelProto:
    """``x @ w`` with a sparse ``w`` of ``[4, 3]``; ``change`` replaces parts of the tensor."""
    parts = {"dims": [4, 3], "indices": np.array([1, 4, 11]), "values": np.array([1, 2, 3], np.float32)}
    parts |= change
    sparse = onnx.SparseTensorProto(
        values=numpy_helper.from_array(parts["values"], "w"),
        indices=numpy_helper.from_array(parts["indices"], "at"),
        dims=parts["dims"],
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sparse",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        sparse_initializer=[sparse],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_both_kinds_of_sparse_indices() -> None:
    wanted = np.zeros((4, 3), np.float32)
    wanted.flat[[1, 4, 11]] = [1, 2, 3]
    for indices in (np.array([1, 4, 11]), np.array([[0, 1], [1, 1], [3, 2]])):
        found = stored_arrays(graphprune.load(sparse_file(indices=indices)).ir, ["w"])["w"]
        assert (found == wanted).all()


def test_sparse_initializers_inside_branches() -> None:
    """onnxruntime does not read them there, but onnx allows them."""
    inner = sparse_file().graph
    branch = helper.make_graph(
        inner.node, "branch", [], inner.output, sparse_initializer=inner.sparse_initializer
    )
    node = helper.make_node("If", ["which"], ["out"], then_branch=branch, else_branch=branch)
    inputs = [inner.input[0], helper.make_tensor_value_info("which", TensorProto.BOOL, [])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 3])]
    graph = helper.make_graph([node], "outer", inputs, outputs)
    loaded = graphprune.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert loaded.notes == ["2 sparse initializers were read as dense ones (the first is 'w')"]
    assert all("w" in g.initializers for g in loaded.ir.graph.subgraphs())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"indices": np.array([1, 4, 12])}, "indices outside its shape"),
        ({"indices": np.array([-1, 4, 11])}, "indices outside its shape"),
        ({"indices": np.array([[0, 1], [1, 3], [3, 2]])}, "indices outside its shape"),
        ({"indices": np.array([1, 4])}, "values and .* indices"),
        ({"indices": np.array([1, 4, 4])}, "do not ascend"),
        ({"indices": np.array([1.0, 4, 11])}, "no integers"),
        ({"values": np.ones((3, 1), np.float32)}, "values and .* indices"),
        ({"values": np.array(["a", "b", "c"], object)}, "holds no numbers"),
        ({"dims": [4, 0]}, "claims the shape"),
        ({"dims": []}, "claims the shape"),
        ({"dims": [1 << 40, 1 << 20]}, "claims the shape"),
    ],
)
def test_damaged_sparse_tensors_are_refused(change: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(sparse_file(**change).SerializeToString())
    with pytest.raises(ModelError, match=words) as error:
        graphprune.load(path)
    assert "\n" not in str(error.value)


def test_sparse_data_that_is_cut_off(tmp_path: Path) -> None:
    proto = sparse_file()
    values = proto.graph.sparse_initializer[0].values
    values.raw_data = values.raw_data[:5]
    with pytest.raises(ModelError, match="does not fit its shape"):
        graphprune.load(proto)
    values.data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="another file"):
        graphprune.load(proto)
    proto.graph.sparse_initializer[0].values.name = ""
    with pytest.raises(ModelError, match="has no name"):
        graphprune.load(proto)


# -- writing: whole or not at all -------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_existing_files_are_not_replaced(name: str, tmp_path: Path) -> None:
    model, layouts = blocked(small_network())
    emitted = emit(model, layouts, name)
    (tmp_path / "m.blocks.npz").write_bytes(b"mine")
    with pytest.raises(OptionError, match=r"m\.blocks\.npz exists already"):
        emitted.save(tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.blocks.npz"]
    emitted.save(tmp_path / "m.onnx", force=True)
    assert graphprune.load_blocks(tmp_path / "m.onnx")
    with pytest.raises(OptionError, match=r"m\.onnx exists already"):
        emitted.save(tmp_path / "m.onnx")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, layouts = blocked(small_network())
    emitted = emit(model, layouts, "compact")
    real = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if path.name.endswith(".npz"):
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OptionError, match="No space left on device"):
        emitted.save(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_weights_in_an_external_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, layouts = blocked(RESNET)
    wanted = run(ir.to_proto(model), feeds(model))
    monkeypatch.setattr(writing, "EXTERNAL_FROM_BYTES", 10_000)
    path = emit(model, layouts, name).save(tmp_path / "m.onnx")
    assert name == "sparse-initializer" or (tmp_path / "m.onnx.data").exists()
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert same(session.run(None, feeds(model)), wanted)
    loaded = graphprune.load(path).ir
    again = emit(loaded, layouts if name != "compact" else {}, name)
    again.save(tmp_path / "again.onnx")
    session = ort.InferenceSession(tmp_path / "again.onnx", providers=["CPUExecutionProvider"])
    assert same(session.run(None, feeds(model)), wanted)


def test_a_file_cannot_hold_more_than_two_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.formats import sparse_initializer

    monkeypatch.setattr(sparse_initializer, "EXTERNAL_FROM_BYTES", 1000)
    model, layouts = blocked(RESNET)
    with pytest.raises(OptionError, match="choose --format compact"):
        emit(model, layouts, "sparse-initializer")


# -- third-party files and OpenVINO ------------------------------------------------------------------------


def third_party() -> Iterator[Path]:
    return (p for p in shared_models() if p.stem in THIRD_PARTY)


def openvino_outputs(path: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    core = openvino.Core()
    settings_ = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(path), "CPU", settings_)
    found = compiled(feed)
    return [found[i] for i in range(len(compiled.outputs))]


def close(left: list[np.ndarray], right: list[np.ndarray], tolerance: float) -> bool:
    return all(
        np.abs(a.astype(np.float64) - b).max() <= tolerance * max(np.abs(b.astype(np.float64)).max(), 1e-6)
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("path", [RESNET, *third_party()], ids=lambda p: p.stem)
def test_onnxruntime_and_openvino_agree(path: Path, name: str, tmp_path: Path) -> None:
    model, layouts = blocked(path, 0.6)
    assert layouts
    feed = feeds(model)
    wanted = run(ir.to_proto(model), feed)
    emitted = emit(model, layouts, name)
    assert same(run(emitted.to_onnx(), feed), wanted)
    assert name != "compact" or emitted.to_onnx().ByteSize() < emit(model, layouts).to_onnx().ByteSize()
    written = emitted.save(tmp_path / "m.onnx")
    if name != "sparse-initializer":
        half = any(w.dtype == np.float16 for w in emitted.weights.values())
        assert close(openvino_outputs(written, feed), wanted, 2e-2 if half else 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_openvino_reads_weights_from_unusual_places(case: str, tmp_path: Path) -> None:
    array, layout = block_array()
    emitted = emit(graphprune.load(one_matmul(array, **CASES[case])).ir, {"w": layout}, "compact")
    feed = {"x": np.random.default_rng(0).standard_normal((2, 50)).astype(np.float32)}
    if "branch" in CASES[case]:
        feed["which"] = np.array(True)
    path = emitted.save(tmp_path / "m.onnx")
    assert close(openvino_outputs(path, feed), run(emitted.to_onnx(), feed), 1e-5)


def test_an_old_network_of_the_onnx_package() -> None:
    """IR version 3: every initializer is a graph input too."""
    model, layouts = blocked(light_model("squeezenet"))
    feed = feeds(model)
    wanted = run(ir.to_proto(model), feed)
    for name in FORMATS:
        proto = emit(model, layouts, name).to_onnx()
        onnx.checker.check_model(proto)
        assert same(run(proto, feed), wanted)
