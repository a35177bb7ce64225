"""Heavy operators in PyTorch against onnxruntime: one node per model, many attributes, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from graphprune.errors import ConversionError
from graphprune.fx import Imported, import_model

Array = np.ndarray
RNG = np.random.default_rng


def normal(*shape: int, seed: int = 0) -> Array:
    return RNG([seed, *shape]).standard_normal(shape).astype(np.float32)


def positive(*shape: int, seed: int = 0) -> Array:
    return RNG([seed, *shape]).uniform(0.5, 1.5, shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def node_model(
    op: str,
    live: Sequence[Array],
    stored: Sequence[Array | None] = (),
    *,
    opset: int = 17,
    outputs: int = 1,
    batch: int | None = 0,
    **attributes: Any,
) -> onnx.ModelProto:
    """One node: ``live`` inputs, then ``stored`` ones (None: absent). Axis ``batch`` of live inputs is dynamic."""
    domain, _, name = op.rpartition("::")
    names, infos, weights = [], [], []
    for i, array in enumerate(live):
        shape: list[int | str] = list(array.shape)
        if batch is not None and shape:
            shape[batch] = "batch"
        names.append(f"x{i}")
        infos.append(
            helper.make_tensor_value_info(names[-1], helper.np_dtype_to_tensor_dtype(array.dtype), shape)
        )
    for i, array in enumerate(stored):
        names.append("" if array is None else f"w{i}")
        if array is not None:
            weights.append(numpy_helper.from_array(np.asarray(array), names[-1]))
    outs = [f"y{i}" for i in range(outputs)]
    results = [helper.make_empty_tensor_value_info(o) for o in outs]
    node = helper.make_node(name, names, outs, "the_node", domain=domain, **attributes)
    graph = helper.make_graph([node], "one", infos, results, weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 21 else 10)


def expected(model: onnx.ModelProto, feeds: Sequence[Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, {i.name: a for i, a in zip(session.get_inputs(), feeds, strict=True)}))


def converted(model: onnx.ModelProto) -> Imported:
    return import_model(ir.serde.deserialize_model(model))


def run(imported: Imported, feeds: Sequence[Array]) -> list[torch.Tensor]:
    result = imported.module(*(torch.tensor(a, requires_grad=a.dtype == np.float32) for a in feeds))
    return [result] if isinstance(result, torch.Tensor) else list(result)


def check(
    op: str,
    live: Array | Sequence[Array],
    *stored: Array | None,
    tolerance: float = 1e-5,
    gradient: bool = True,
    **options: Any,
) -> Imported:
    """The module equals onnxruntime, and finite gradients reach its inputs and every weight."""
    feeds = [live] if isinstance(live, np.ndarray) else list(live)
    model = node_model(op, feeds, stored, **options)
    want = expected(model, feeds)
    imported = converted(model)
    inputs = [torch.tensor(a, requires_grad=a.dtype == np.float32) for a in feeds]
    result = imported.module(*inputs)
    got = [result] if isinstance(result, torch.Tensor) else list(result)
    for y, wanted in zip(got, want, strict=True):
        assert tuple(y.shape) == wanted.shape
        scale = max(1.0, float(np.abs(wanted).max(initial=0)))
        np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=0, atol=tolerance * scale)
    if gradient:
        sum((y * torch.linspace(0.5, 1, y.numel()).reshape(y.shape)).sum() for y in got).backward()
        reached = [x for x in inputs if x.requires_grad] + list(imported.module.parameters())
        assert reached
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in reached)
    return imported


def refused(
    op: str, live: Array | Sequence[Array], *stored: Array | None, match: str, **options: Any
) -> None:
    feeds = [live] if isinstance(live, np.ndarray) else list(live)
    with pytest.raises(ConversionError, match=match) as caught:
        converted(node_model(op, feeds, stored, **options))
    assert "the_node" in str(caught.value)
    assert op in str(caught.value)


# -- convolution ------------------------------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn, *, dilated: bool = True) -> dict[str, Any]:
    """Attributes of a window over 1 to 3 spatial axes, and the spatial sizes that it fits in."""
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int, count: int = rank) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    kernel, dilation = each(1, 3), each(1, 2) if dilated else [1] * rank
    window = {"kernel_shape": kernel, "strides": each(1, 3), "sizes": each(5, 8)}
    if dilated:
        window["dilations"] = dilation
    mode = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if mode == "NOTSET":
        window["pads"] = [min(p, k - 1) for p, k in zip(each(0, 2, 2 * rank), kernel * 2, strict=True)]
    else:
        window["auto_pad"] = mode
        if mode.startswith("SAME"):  # onnxruntime refuses the others
            assume(set(dilation) == {1})
            assume(all(k >= s for k, s in zip(kernel, window["strides"], strict=True)))
    return window


@settings(max_examples=60, deadline=None)
@given(windows(), st.sampled_from([1, 2]), st.booleans())
def test_conv(window: dict[str, Any], group: int, bias: bool) -> None:
    sizes = window.pop("sizes")
    weight = normal(6, 4 // group, *window["kernel_shape"])
    check("Conv", normal(2, 4, *sizes), weight, normal(6) if bias else None, group=group, **window)


def test_depthwise_conv_keeps_its_weight_whole() -> None:
    imported = check("Conv", normal(2, 4, 6, 6), normal(4, 1, 3, 3), pads=[1, 0, 1, 2], group=4)
    (weight,) = (n for n in imported.module.graph.nodes if n.name == imported.nodes["w0"])
    assert weight.op == "get_attr"
    assert [u.target for u in weight.users] == [torch.nn.functional.conv2d]


@pytest.mark.parametrize("batch", [1, 3])
def test_batch_stays_dynamic(batch: int) -> None:
    model = node_model(
        "Conv", [normal(2, 3, 8, 8)], [normal(4, 3, 3, 3)], auto_pad="SAME_UPPER", strides=[2, 2]
    )
    feed = normal(batch, 3, 8, 8)
    (got,) = run(converted(model), [feed])
    np.testing.assert_allclose(got.detach().numpy(), expected(model, [feed])[0], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(windows(), st.data())
def test_conv_transpose(window: dict[str, Any], data: st.DataObject) -> None:
    rank, sizes = len(window["kernel_shape"]), window.pop("sizes")
    if not window.get("auto_pad", "").startswith("SAME"):
        window["output_padding"] = [data.draw(st.integers(0, stride - 1)) for stride in window["strides"]]
    group = data.draw(st.sampled_from([1, 2]))
    assume(rank < 3 or set(window["dilations"]) == {1})
    check("ConvTranspose", normal(2, 4, *sizes), normal(4, 3, *window["kernel_shape"]), normal(3 * group),
          group=group, **window)  # fmt: skip


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("shape", [[11, 10], [10, 9], [12, 11], [9, 12]])
def test_conv_transpose_to_an_output_shape(mode: str, shape: list[int]) -> None:
    x, w = normal(2, 4, 5, 5), normal(4, 3, 3, 4)
    check("ConvTranspose", x, w, normal(3), auto_pad=mode, output_shape=shape, strides=[2, 2])


def test_conv_transpose_refuses_to_grow_by_a_stride() -> None:
    refused(
        "ConvTranspose", normal(1, 2, 5), normal(2, 2, 3), match="grow by 3", output_shape=[14], strides=[2]
    )


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid"])
def test_fused_conv(activation: str) -> None:
    x, w, b = normal(2, 4, 6, 6), normal(4, 4, 3, 3), normal(4)
    check("com.microsoft::FusedConv", x, w, b, activation=activation, pads=[1] * 4)
    check(
        "com.microsoft::FusedConv", [x], w, b, normal(2, 4, 6, 6, seed=1), activation=activation, pads=[1] * 4
    )


# -- pooling ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(windows(), st.booleans())
def test_max_pool(window: dict[str, Any], ceil: bool) -> None:
    x = normal(2, 3, *window.pop("sizes"))
    check("MaxPool", x, ceil_mode=int(ceil and "auto_pad" not in window), **window)


@settings(max_examples=80, deadline=None)
@given(windows(), st.booleans(), st.booleans())
def test_average_pool(window: dict[str, Any], ceil: bool, counted: bool) -> None:
    x = normal(2, 3, *window.pop("sizes"))
    ceil = ceil and "auto_pad" not in window
    check("AveragePool", x, ceil_mode=int(ceil), count_include_pad=int(counted), opset=19, **window)


@settings(max_examples=40, deadline=None)
@given(windows(), st.sampled_from([1, 2, 3]))
def test_lp_pool(window: dict[str, Any], p: int) -> None:
    x = normal(2, 3, *window.pop("sizes"))
    check("LpPool", x, p=p, opset=18, **window)


def test_lp_pool_has_a_gradient_at_zero() -> None:
    check("LpPool", np.zeros((1, 2, 4, 4), np.float32), kernel_shape=[2, 2])


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5), (2, 3, 3, 4, 2)])
def test_global_pool(op: str, shape: tuple[int, ...]) -> None:
    check(op, normal(*shape))


def test_max_pool_refuses_indices() -> None:
    refused("MaxPool", normal(1, 2, 4, 4), match="indices", kernel_shape=[2, 2], outputs=2)


# -- normalisation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 5, 4), (2, 3, 2, 3, 4)])
@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_norm(shape: tuple[int, ...], opset: int) -> None:
    weights = [positive(3), normal(3), normal(3, seed=1), positive(3, seed=1)]
    imported = check("BatchNormalization", normal(*shape), *weights, opset=opset, epsilon=1e-3)
    assert imported.tensors.keys() == {n for n, _ in imported.module.named_parameters()} | {
        n for n, _ in imported.module.named_buffers() if n in imported.tensors
    }
    assert len(list(imported.module.parameters())) == 2


def test_batch_norm_follows_train_and_eval() -> None:
    x, weights = normal(8, 3, 4, 4), [positive(3), normal(3), normal(3, seed=1), positive(3, seed=1)]
    module = converted(node_model("BatchNormalization", [x], weights, momentum=0.8)).module
    before = {n: b.clone() for n, b in module.named_buffers()}
    module.eval()(torch.tensor(x))
    assert all(torch.equal(b, before[n]) for n, b in module.named_buffers())
    twin = torch.nn.BatchNorm2d(3, momentum=0.2)
    state = zip(("weight", "bias", "running_mean", "running_var"), weights, strict=True)
    twin.load_state_dict({n: torch.tensor(w) for n, w in state}, strict=False)
    np.testing.assert_allclose(
        module.train()(torch.tensor(x)).detach(), twin.train()(torch.tensor(x)).detach(), atol=1e-6
    )
    moved = [b for n, b in module.named_buffers() if b.shape == (3,)]
    assert len(moved) == 2
    for mine, theirs in zip(moved, (twin.running_mean, twin.running_var), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_batch_norm_refuses_what_it_cannot_keep() -> None:
    weights = [positive(3), normal(3), normal(3), positive(3)]
    refused("BatchNormalization", normal(2, 3, 4), *weights, match="spatial=0", opset=7, spatial=0)
    refused("BatchNormalization", normal(2, 3, 4), *weights, match="y1", opset=15, training_mode=1, outputs=3)


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5), (2, 3, 2, 4, 3)])
def test_instance_norm(shape: tuple[int, ...]) -> None:
    check("InstanceNormalization", normal(*shape), positive(3), normal(3), epsilon=1e-4)


@pytest.mark.parametrize(("opset", "size"), [(18, 3), (21, 6)])
@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 4, 4)])
def test_group_norm(opset: int, size: int, shape: tuple[int, ...]) -> None:
    check("GroupNormalization", normal(*shape), positive(size), normal(size), num_groups=3, opset=opset)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axis", [-1, 1, 2, 0])
def test_layer_norm(axis: int, bias: bool) -> None:
    x = normal(2, 4, 6)
    shape = x.shape[axis:]
    batch = None if axis == 0 else 0
    extra = (normal(*shape),) if bias else ()
    check("LayerNormalization", x, positive(*shape), *extra, axis=axis, epsilon=1e-4, batch=batch)


def test_layer_norm_with_its_statistics() -> None:
    check("LayerNormalization", normal(2, 4, 6), positive(6), normal(6), outputs=3)


def test_layer_norm_with_scale_and_bias_that_broadcast() -> None:
    check("LayerNormalization", normal(2, 4, 6), positive(6), normal(1, 6), axis=1)


@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_norm(axis: int) -> None:
    x = normal(2, 4, 6)
    check("RMSNormalization", x, positive(*x.shape[axis:]), axis=axis, opset=23)
    check("SimplifiedLayerNormalization", x, positive(6), epsilon=1e-3)


def test_skip_layer_norm() -> None:
    live, scale = [normal(2, 4, 8), normal(2, 4, 8, seed=1)], positive(8)
    check("com.microsoft::SkipLayerNormalization", live, scale, normal(8), normal(8, seed=2))
    check("com.microsoft::SkipLayerNormalization", live, scale, epsilon=1e-3)
    check("com.microsoft::SkipSimplifiedLayerNormalization", live, scale, normal(8))
    refused("com.microsoft::SkipLayerNormalization", live, scale, match="statistics", outputs=2)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size: int) -> None:
    check("LRN", normal(2, 6, 4, 3), size=size, alpha=0.3, beta=0.6, bias=1.5)


@pytest.mark.parametrize("size", [2, 4])
def test_lrn_of_even_size(size: int) -> None:
    """onnxruntime has odd sizes only; the standard's window reaches one further to the right."""
    x = normal(2, 6, 5)
    module = converted(node_model("LRN", [x], size=size, alpha=0.3, beta=0.6, bias=1.5)).module
    for i in range(6):
        near = x[:, max(0, i - (size - 1) // 2) : i + size // 2 + 1]
        wanted = x[:, i] / (1.5 + 0.3 / size * (near**2).sum(1)) ** 0.6
        np.testing.assert_allclose(module(torch.tensor(x))[:, i], wanted, rtol=1e-5)


def test_mean_variance_norm() -> None:
    check("MeanVarianceNormalization", normal(2, 3, 4, 5), tolerance=1e-4)
    check("MeanVarianceNormalization", normal(2, 3, 4, 5), axes=[2, 3], tolerance=1e-4)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("p", [1, 2])
def test_lp_norm(axis: int, p: int) -> None:
    x = normal(2, 3, 4)
    x[0, 1] = 0
    check("LpNormalization", x, axis=axis, p=p)


@pytest.mark.parametrize(
    ("opset", "attributes", "stored"),
    [(7, {"ratio": 0.25}, ()), (12, {}, (np.float32(0.25),)), (13, {}, (np.float32(0.25), np.bool_(True)))],
)
def test_dropout(opset: int, attributes: dict[str, float], stored: tuple[Any, ...]) -> None:
    x = positive(40, 50)
    module = converted(node_model("Dropout", [x], stored, opset=opset, **attributes)).module
    np.testing.assert_array_equal(module(torch.tensor(x)), x)
    torch.manual_seed(0)
    dropped = module.train()(torch.tensor(x)).numpy()
    assert np.mean(dropped == 0) == pytest.approx(0.25, abs=0.05)
    np.testing.assert_allclose(dropped[dropped != 0], (x / 0.75)[dropped != 0], rtol=1e-6)


def test_dropout_refuses_its_mask() -> None:
    refused("Dropout", normal(2, 3), match="y1", outputs=2)


# -- matrix products --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (3, 4)), ((2, 5, 3), (3, 4)), ((2, 2, 5, 3), (2, 3, 4)), ((2, 3), (3,))]
)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check("MatMul", normal(*a), normal(*b))
    check("com.microsoft::FusedMatMul", normal(*a), normal(*b), alpha=0.5)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("scales", [{}, {"alpha": 0.5}, {"beta": 2.0}, {"alpha": 0.3, "beta": 0.0}])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (4, 1), (), (1,)])
def test_gemm(trans_a: int, trans_b: int, scales: dict[str, float], bias: tuple[int, ...] | None) -> None:
    a, b = normal(*((3, 4) if trans_a else (4, 3))), normal(*((5, 3) if trans_b else (3, 5)))
    extra = () if bias is None else (normal(*bias),)
    check("Gemm", a, b, *extra, transA=trans_a, transB=trans_b, **scales, batch=None)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_fused_matmul(trans_a: int, trans_b: int) -> None:
    a, b = normal(*((2, 3, 4) if trans_a else (2, 4, 3))), normal(*((5, 3) if trans_b else (3, 5)))
    check("com.microsoft::FusedMatMul", a, b, transA=trans_a, transB=trans_b, alpha=2.0)


@pytest.mark.parametrize(
    "equation", ["bij, jk -> bik", "bij,jk", "bij,kj->bki", "...ij,jk->...ik", "bij,ij->b"]
)
def test_einsum(equation: str) -> None:
    second = (4, 5) if "jk" in equation else (5, 4) if "kj" in equation else (3, 4)
    check("Einsum", normal(2, 3, 4), normal(*second), equation=equation)


# -- reductions -------------------------------------------------------------------------------------

REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axes", [None, [1], [-1, 1], [2]])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions(name: str, axes: list[int] | None, keep: int) -> None:
    x = positive(2, 3, 4)
    given_axes = {} if axes is None else {"axes": axes}
    if name != "Sum":
        check(f"Reduce{name}", x, keepdims=keep, opset=13, **given_axes)
    second = () if axes is None else (ints(*axes),)
    check(f"Reduce{name}", x, *second, keepdims=keep, opset=18)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_no_axis(name: str) -> None:
    check(f"Reduce{name}", positive(2, 3), noop_with_empty_axes=1, opset=18)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [9, 11, 13])
@pytest.mark.parametrize("axis", [None, 1, 2, -1, -2])
def test_softmax(op: str, opset: int, axis: int | None) -> None:
    assume_valid = {} if axis is None else {"axis": axis}
    check(op, normal(2, 3, 4), opset=opset, gradient=op != "Hardmax", **assume_valid)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axis", [1, -1])
def test_arg(op: str, last: int, keep: int, axis: int) -> None:
    x = RNG(0).integers(0, 3, (2, 5, 6)).astype(np.float32)
    check(op, x, axis=axis, keepdims=keep, select_last_index=last, gradient=False)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [1, -1])
def test_top_k(largest: int, axis: int) -> None:
    x = RNG(0).integers(0, 4, (2, 5, 6)).astype(np.float32)
    check("TopK", x, ints(3), largest=largest, axis=axis, outputs=2, gradient=False)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [1, -1])
def test_cumsum(exclusive: int, reverse: int, axis: int) -> None:
    check("CumSum", normal(2, 5, 3), np.array(axis, np.int64), exclusive=exclusive, reverse=reverse)


# -- attention --------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("folded", [True, False])
def test_attention(folded: bool, mask: str | None, causal: int) -> None:
    shapes = [(2, 5, 12), (2, 7, 6), (2, 7, 10)] if folded else [(2, 4, 5, 3), (2, 2, 7, 3), (2, 2, 7, 5)]
    heads = {"q_num_heads": 4, "kv_num_heads": 2} if folded else {}
    stored: list[Array] = []
    if mask == "bool":
        stored = [np.tril(np.ones((5, 7), bool), 3)]
    elif mask == "float":
        stored = [normal(5, 7)]
    live = [normal(*s, seed=i) for i, s in enumerate(shapes)]
    check("Attention", live, *stored, opset=23, is_causal=causal, scale=0.4, **heads)


def test_attention_refusals() -> None:
    live = [normal(2, 4, 5, 3), normal(2, 4, 7, 3), normal(2, 4, 7, 3)]
    refused("Attention", live, match="softcap", opset=23, softcap=2.0)
    refused(
        "Attention", live, None, normal(2, 4, 1, 3), normal(2, 4, 1, 3), match="cache", opset=23, outputs=3
    )
    refused("Attention", live, match="outputs", opset=23, outputs=4)


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("padding", [None, np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)])
def test_packed_attention(padding: Array | None, unidirectional: int) -> None:
    x, w, b = normal(2, 5, 8), normal(8, 24), normal(24)
    options = {"num_heads": 2, "unidirectional": unidirectional, "batch": None}
    check("com.microsoft::Attention", x, w, b, padding, **options)
    check("com.microsoft::Attention", x, w, b, padding, None, normal(2, 2, 5, 5), scale=0.3, **options)


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("padding", [None, np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)])
def test_multi_head_attention(padding: Array | None, unidirectional: int) -> None:
    live = [normal(2, 5, 8, seed=i) for i in range(3)]
    options = {"num_heads": 2, "unidirectional": unidirectional, "batch": None}
    check("com.microsoft::MultiHeadAttention", live, normal(24), padding, **options)
    check("com.microsoft::MultiHeadAttention", live, None, padding, normal(1, 2, 5, 5), scale=0.3, **options)


# -- recurrent layers -------------------------------------------------------------------------------

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent_weights(
    op: str, directions: int, *, bias: bool, states: bool, hidden: int = 4, batch: int = 2
) -> list[Array | None]:
    """W, R, B, lengths and initial states for three features."""
    rows, count = GATES[op] * hidden, 2 if op == "LSTM" else 1
    given_states = [normal(directions, batch, hidden, seed=i) for i in range(count)] if states else []
    biases = normal(directions, 2 * rows) if bias else None
    return [normal(directions, rows, 3), normal(directions, rows, hidden), biases, None, *given_states]


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "extra"), [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})]
)
def test_recurrent(op: str, extra: dict[str, int], direction: str, bias: bool, states: bool) -> None:
    weights = recurrent_weights(op, 2 if direction == "bidirectional" else 1, bias=bias, states=states)
    outputs = 3 if op == "LSTM" else 2
    batch = None if states else 1
    check(
        op,
        normal(5, 2, 3),
        *weights,
        hidden_size=4,
        direction=direction,
        outputs=outputs,
        batch=batch,
        **extra,
    )


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "activations"),
    [
        ("RNN", ["Relu"]),
        ("RNN", ["Sigmoid"]),
        ("GRU", ["Sigmoid", "Softsign"]),
        ("LSTM", ["Sigmoid", "Relu", "Tanh"]),
    ],
)
def test_other_activations(op: str, activations: list[str], direction: str) -> None:
    count = 2 if direction == "bidirectional" else 1
    weights = recurrent_weights(op, count, bias=True, states=True)
    options = {"hidden_size": 4, "direction": direction, "batch": None}
    check(op, normal(5, 2, 3), *weights, activations=activations * count, **options)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_clipped_cells(op: str) -> None:
    weights = recurrent_weights(op, 1, bias=True, states=False)
    check(op, normal(5, 2, 3), *weights, hidden_size=4, clip=0.5, batch=None)


def test_lstm_with_peepholes() -> None:
    weights = recurrent_weights("LSTM", 1, bias=True, states=True)
    check("LSTM", normal(5, 2, 3), *weights, normal(1, 12), hidden_size=4, outputs=3, batch=None)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("states", [False, True])
def test_batch_first_layout(op: str, states: bool) -> None:
    """onnxruntime has no layout=1: the same numbers, transposed, must come out."""
    x, weights = normal(5, 2, 3), recurrent_weights(op, 1, bias=True, states=states)
    options = {"hidden_size": 4, "outputs": 2, "batch": None}
    want = expected(node_model(op, [x], weights, **options), [x])
    swapped = weights[:4] + [w.swapaxes(0, 1) for w in weights[4:] if w is not None]
    first = np.ascontiguousarray(x.swapaxes(0, 1))
    y, last = run(converted(node_model(op, [first], swapped, layout=1, **options)), [first])
    np.testing.assert_allclose(y.detach(), want[0].transpose(2, 0, 1, 3), atol=1e-5)
    np.testing.assert_allclose(last.detach(), want[1].swapaxes(0, 1), atol=1e-5)


def test_one_initial_state_serves_every_sample() -> None:
    x, many = normal(5, 1, 3), normal(5, 4, 3)
    weights = recurrent_weights("GRU", 1, bias=True, states=True, batch=1)
    imported = converted(node_model("GRU", [x], weights, hidden_size=4, linear_before_reset=1, batch=None))
    (got,) = run(imported, [many])
    np.testing.assert_allclose(
        got[:, :, 2].detach(), run(imported, [many[:, 2:3]])[0][:, :, 0].detach(), atol=1e-6
    )


def test_recurrent_refusals() -> None:
    x, weights = normal(5, 2, 3), recurrent_weights("LSTM", 1, bias=True, states=False)
    options = {"hidden_size": 4, "batch": None}
    refused("LSTM", x, *weights, match="input_forget", input_forget=1, **options)
    refused("LSTM", x, *weights[:3], np.array([5, 3], np.int32), match="lengths of their own", **options)
    refused("LSTM", x, *weights, match="Elu", activations=["Sigmoid", "Elu", "Tanh"], **options)
    check("LSTM", x, *weights[:3], np.array([5, 5], np.int32), **options)


# -- resizing ---------------------------------------------------------------------------------------

COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_resize(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    rank = 2 if mode == "cubic" else data.draw(st.integers(1, 3))
    sizes = [data.draw(st.integers(3, 7)) for _ in range(rank)]
    attributes: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": data.draw(st.sampled_from(COORDINATES)),
    }
    if mode == "nearest":
        choices = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes["nearest_mode"] = data.draw(st.sampled_from(choices))
        # Exact ties: one ulp decides between two positions, and the order of float32 operations differs.
        symmetric = attributes["coordinate_transformation_mode"] == "half_pixel_symmetric"
        assume(not symmetric or attributes["nearest_mode"].startswith("round"))
    if mode == "cubic":
        attributes["cubic_coeff_a"] = data.draw(st.sampled_from([-0.75, -0.5]))
        attributes["exclude_outside"] = data.draw(st.sampled_from([0, 1]))
    if data.draw(st.booleans()):
        scales = [data.draw(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 0.7])) for _ in sizes]
        stored: list[Array | None] = [None, floats(1, 1, *scales)]
    else:
        stored = [None, None, ints(2, 3, *(data.draw(st.integers(1, 12)) for _ in sizes))]
    check("Resize", normal(2, 3, *sizes), *stored, opset=19, batch=None, **attributes)


@pytest.mark.parametrize(
    ("attributes", "mode"),
    [
        (
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            "nearest",
        ),
        ({"mode": "nearest"}, "nearest"),
        ({"mode": "linear"}, "bilinear"),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, "bilinear"),
        ({"mode": "cubic"}, "bicubic"),
    ],
)
def test_usual_resizes_are_one_torch_call(attributes: dict[str, str], mode: str) -> None:
    imported = check("Resize", normal(2, 3, 5, 6), None, floats(1, 1, 2, 2), **attributes)
    (call,) = (n for n in imported.module.graph.nodes if n.op == "call_function")
    assert call.target is torch.nn.functional.interpolate
    assert call.kwargs["mode"] == mode


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_resize_keeps_the_aspect_ratio(policy: str) -> None:
    options = {"axes": [2, 3], "keep_aspect_ratio_policy": policy, "mode": "linear", "opset": 18}
    check("Resize", normal(2, 3, 5, 6), None, None, ints(9, 13), **options)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [2.0, 1.5, 0.6])
def test_old_resize_and_upsample(mode: str, scale: float) -> None:
    x, scales = normal(2, 3, 5, 7), floats(1, 1, scale, scale)
    check("Resize", x, scales, mode=mode, opset=10)
    if scale > 1:
        check("Upsample", x, scales, mode=mode, opset=9)
        check("Upsample", x, scales=[1.0, 1.0, scale, scale], mode=mode, opset=7)


def test_resize_of_channels() -> None:
    check("Resize", normal(2, 3, 4), None, floats(1, 2, 1), mode="nearest")
    refused("Resize", normal(2, 3, 4), None, floats(2, 1, 1), match="batch axis", mode="nearest", batch=None)


def test_resize_refusals() -> None:
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    roi = floats(0, 0, 0.2, 0.2, 1, 1, 0.8, 0.8)
    refused("Resize", normal(1, 1, 4, 4), roi, None, ints(1, 1, 3, 3), match="tf_crop", **crop)
    antialias = {"antialias": 1, "mode": "linear", "opset": 18}
    refused("Resize", normal(1, 1, 4, 4), None, None, ints(1, 1, 3, 3), match="antialias", **antialias)
