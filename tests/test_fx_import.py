"""ONNX -> torch.fx: whole networks against onnxruntime, and what the module promises about its tensors."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch", reason="training needs torch")

import torch

import sample_models
from graphprune.errors import ConversionError
from graphprune.fx import Imported, accepts_batches
from tests.conftest import small_network
from tests.fx_oracle import TOLERANCE, apart, difference, feed, imported, reference, run
from tests.random_graphs import build, random_recipe
from tests.real_models import LIGHT, LIGHT_NAMES, light_model, shared_models

SHAPES = {"NVIDIA__attention_head": {"input": (100, 100, 100)}}
"""The only sizes at which its two products fit."""

REFUSED = {
    "Rehan000__xfeat_vga": "node 'n3_3': operator SequenceEmpty \\(nor ConcatFromSequence, Loop\\)",
    "microsoft__fns_candy": "node 'scalerPreprocessor': operator ImageScaler \\(nor Affine, Crop\\)",
    "udaypartha__yolov8n-seg_int8": "node 'images_QuantizeLinear': operator DynamicQuantizeLinear \\(nor Conv",
}

MANY = 1_000_000
"""Elements of a tensor that is not compared element by element; the outputs tell."""

HALF_PRECISION = {"microsoft__SqueezeNet_fp16": 2e-2}
"""The module computes in float32, onnxruntime rounds every result to float16."""

SAMPLED = ("bisenet_v2", "swin", "vit", "yolov5_raw")
"""What the light models do not resemble; exporting every sample would take a minute."""


# -- whole networks ---------------------------------------------------------------------------------


def check_network(model: Imported, source: Path | onnx.ModelProto, tolerance: float = TOLERANCE) -> None:
    """Equal to onnxruntime at a batch size that was not analysed; every tensor named; every weight trained."""
    assert difference(model, source, batch=4) <= tolerance
    check_names(model, source)
    check_gradients(model)


def check_names(model: Imported, source: Path | onnx.ModelProto) -> None:
    """The module's tensors map one-to-one to tensors of the file, and hold the same numbers."""
    proto = onnx.load(source) if isinstance(source, Path) else source
    stored = {t.name: t for t in proto.graph.initializer}
    stored |= {n.output[0]: a.t for n in proto.graph.node for a in n.attribute if a.name == "value"}
    assert len(set(model.tensors.values())) == len(model.tensors)
    attributes = dict(model.module.named_parameters()) | dict(model.module.named_buffers())
    assert set(model.tensors) <= set(attributes)
    assert {n for n, _ in model.module.named_parameters()} <= set(model.tensors)
    for attribute, name in model.tensors.items():
        array = attributes[attribute].detach().numpy()
        assert array.shape == tuple(stored[name].dims)
        if array.size < MANY:
            np.testing.assert_array_equal(array, numpy_helper.to_array(stored[name]))
        assert str(find(model, name).target) == attribute


def find(model: Imported, name: str) -> torch.fx.Node:
    """The fx node of an ONNX value."""
    return next(n for n in model.module.graph.nodes if n.name == model.nodes[name])


def check_gradients(model: Imported) -> None:
    outputs = [y for y in run(model, feed(model)) if y.is_floating_point()]
    sum((y * torch.randn_like(y)).sum() for y in outputs).backward()
    without = [n for n, p in model.module.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize("path", shared_models(), ids=lambda p: p.stem)
def test_third_party_files(path: Path) -> None:
    shapes = SHAPES.get(path.stem)
    if path.stem in REFUSED:
        with pytest.raises(ConversionError, match=REFUSED[path.stem]):
            imported(path, shapes)
        return
    model = imported(path, shapes)
    check_network(model, path, HALF_PRECISION.get(path.stem, TOLERANCE))
    assert accepts_batches(model) == (path.stem not in SHAPES)


@pytest.mark.skipif(bool(shared_models()), reason="the folder of third-party models is present")
def test_third_party_files_are_absent() -> None:
    pytest.skip("no ../shared/models beside the repository: third-party files are not imported")


MANY_WEIGHTS = ("vgg19", "zfnet512")
"""And nothing new."""


@pytest.mark.parametrize("name", [n for n in LIGHT_NAMES if n not in MANY_WEIGHTS])
def test_networks_of_the_onnx_package(name: str) -> None:
    """Exported at a fixed batch of 1, and yet they take any."""
    source = light_model(name)
    model = imported(source)
    check_network(model, source)
    assert model.batch.fixed == 1
    assert accepts_batches(model)


@pytest.mark.parametrize("name", SAMPLED)
def test_samples(name: str, tmp_path: Path) -> None:
    path = sample_models.export(name, tmp_path / f"{name}.onnx")
    model = imported(path)
    check_network(model, path)
    assert model.batch.fixed is None
    assert accepts_batches(model)


def test_trained_sample() -> None:
    path = Path(sample_models.__file__).with_name("resnet20_cifar10.onnx")
    model = imported(path)
    check_network(model, path)
    assert accepts_batches(model)


def test_weights_filled_by_an_operator_are_trained() -> None:
    """The light models as they ship: every weight is a ConstantOfShape node."""
    model = imported(LIGHT / "light_squeezenet.onnx")
    assert len(list(model.module.parameters())) == 52


@pytest.mark.parametrize("seed", range(50))
def test_random_networks(seed: int) -> None:
    source = build(random_recipe(seed))
    model = imported(source)
    check_network(model, source)
    assert accepts_batches(model)


# -- the module as a PyTorch module -----------------------------------------------------------------


def network(
    body: str, *tensors: onnx.TensorProto, inputs: str = "float[B, 4] x", opset: int = 18
) -> onnx.ModelProto:
    """A model of ONNX text with the output y, which is a float unless the text begins with ``type y =>``."""
    outputs = "float[] y" if "=>" not in body else body.split("=>")[0].strip()
    body = body.split("=>")[-1]
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(tensors)
    return model


def tensor(name: str, *shape: int, dtype: type = np.float32, seed: int = 0) -> onnx.TensorProto:
    """Positive random numbers."""
    array = np.random.default_rng((seed, len(name))).uniform(0.5, 1.5, shape)
    return numpy_helper.from_array(np.asarray(array, dtype), name)


NORMALISED = network(
    "y = BatchNormalization (x, scale, shift, mean, variance)",
    *(tensor(n, 4, seed=i) for i, n in enumerate(("scale", "shift", "mean", "variance"))),
)


def test_modes_switch_normalisation() -> None:
    model = imported(NORMALISED)
    module = model.module
    x = torch.randn(8, 4) * 3 + 5
    assert not module.training
    still = module(x)
    before = module.mean.clone()
    assert torch.equal(module(x), still)
    assert torch.equal(module.mean, before)
    moving = module.train()(x)
    torch.testing.assert_close((moving - module.shift).mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    assert not torch.equal(module.mean, before)
    torch.testing.assert_close(module.mean, 0.9 * before + 0.1 * x.mean(0))
    assert {n for n, _ in module.named_parameters()} == {"scale", "shift"}


def test_modes_switch_dropout() -> None:
    module = imported(network("y = Dropout <ratio = 0.5> (x)", opset=11)).module
    x = torch.ones(50, 4)
    assert torch.equal(module(x), x)
    assert (module.train()(x) == 0).any()
    assert torch.equal(module.eval()(x), x)


def test_statistics_behind_identity() -> None:
    """Exporters share equal tensors by Identity nodes; the names lead to the stored tensor."""
    names = ("scale", "shift", "mean", "variance")
    aliases = " ".join(f"{n}_1 = Identity ({n}) {n}_2 = Identity ({n}_1)" for n in names)
    body = f"{aliases} y = BatchNormalization (x, scale_2, shift_2, mean_2, variance_2)"
    model = network(body, *(tensor(n, 4, seed=i) for i, n in enumerate(names)))
    module = imported(model)
    assert module.tensors == {n: n for n in names}
    assert module.nodes["scale_2"] == module.nodes["scale"]
    assert {n for n, _ in module.module.named_buffers()} == {"mean", "variance"}
    assert difference(module, model) <= TOLERANCE


def test_shared_statistics_stay() -> None:
    """One stored tensor is the shift of a layer and the statistics of two: it cannot follow them all."""
    body = "a = BatchNormalization (x, s, b, b, v) y = BatchNormalization (a, s, b, b, v)"
    source = network(body, *(tensor(n, 4, seed=i) for i, n in enumerate("sbv")))
    model = imported(source)
    assert {n for n, _ in model.module.named_parameters()} == {"s"}
    before = {n: b.clone() for n, b in model.module.named_buffers()}
    model.module.train()(torch.randn(8, 4))
    assert all(torch.equal(b, before[n]) for n, b in model.module.named_buffers())
    model.module.eval()
    assert difference(model, source) <= TOLERANCE


def test_one_element_constants_are_not_weights() -> None:
    """An epsilon is a number of the formula; a bias of one channel is a weight."""
    body = "a = Add (x, eps) b = Mul (a, gain) y = Gemm <transB = 1> (b, w, bias)"
    parts = (tensor("eps", 1), tensor("gain", 4), tensor("w", 1, 4), tensor("bias", 1))
    model = imported(network(body, *parts))
    assert {n for n, _ in model.module.named_parameters()} == {"gain", "w", "bias"}
    assert {n for n, _ in model.module.named_buffers()} == {"eps"}


def test_gradients_pass_computed_weights() -> None:
    """A weight that operators rearrange is the stored tensor, and is trained."""
    body = "t = Transpose (w) u = Unsqueeze (t, zero) v = Squeeze (u, zero) y = MatMul (x, v)"
    source = network(body, tensor("w", 90, 4), *NUMBERS)
    model = imported(source)
    check_network(model, source)
    assert dict(model.module.named_parameters())["w"].shape == (90, 4)


def test_names_become_attributes() -> None:
    """Names that are no identifiers, that collide once they are, or that a module has already."""
    names = "layer.0/weight", "layer_0.weight", "0", "forward", "training", "class", "precision", "ärger", "x"
    body = " ".join(f"a{i + 1} = Add (a{i}, w{i})" for i in range(len(names)))
    model = network(f"a0 = Identity (x_in) {body} y = Identity (a{len(names)})", inputs="float[B, 4] x_in")
    for i, name in enumerate(names):
        model.graph.initializer.append(tensor(name, 4, seed=i))
        next(n for n in model.graph.node if f"w{i}" in n.input).input[1] = name
    module = imported(model)
    assert sorted(module.tensors.values()) == sorted(names)
    assert all(a.isidentifier() for a in module.tensors)
    check_network(module, model)


def test_narrow_and_wide_floats_are_computed_in_float32() -> None:
    body = "float16[] y => a = Cast <to = 1> (x) b = Cast <to = 10> (a) c = Mul (b, w) y = Add (c, v)"
    source = network(
        body, tensor("w", 4, dtype=np.float16), tensor("v", 4, dtype=np.float16), inputs="double[B, 4] x"
    )
    model = imported(source)
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    feeds = feed(model, batch=5)
    found = [y.detach().numpy() for y in run(model, feeds)]
    assert found[0].dtype == np.float32
    assert apart(found, reference(source).run(None, feeds)) <= 2e-3


def test_module_can_be_copied_moved_and_saved() -> None:
    source = small_network(layer_norm=True)
    module = imported(source).module
    x = torch.randn(3, 3, 8, 8)
    wanted = module(x)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert torch.equal(module(x), wanted)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file))
    assert torch.equal(twin(x), wanted)
    double = twin.to(torch.float64)(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), wanted)
    module.graph.lint()


def test_inputs_are_differentiable_in_float64() -> None:
    """A check of the whole chain: analytic gradients against finite differences."""
    body = """h = Gemm (x, w) a = Sigmoid (h) i = Cast <to = 1> (n) b = Add (a, i) s = Shape (b)
              t = Reshape (b, s) y = Clip (t, low, high)"""
    bounds = [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", -0.5), ("high", 1.2))]
    source = network(body, tensor("w", 4, 6), *bounds, inputs="float[B, 4] x, int64[B, 6] n")
    module = imported(source).module.double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    n = torch.randint(0, 2, (3, 6))
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(module, {"w": w}, (x, n)), (x, module.w)
    )


# -- batches ----------------------------------------------------------------------------------------

VECTORS = {"zero": [0], "one": [1], "three": [3], "rest": [-1], "pair": [2, 2]}
SCALARS = {"scalar0": 0, "scalar1": 1, "scalar2": 2}
NUMBERS = [numpy_helper.from_array(np.array(v), n) for n, v in (VECTORS | SCALARS).items()]
"""Constants for the shape arithmetic below."""

DYNAMIC = {
    "its own shape": "s = Shape (x) y = Reshape (x, s)",
    "a view": "b = Shape <end = 1> (x) t = Concat <axis = 0> (b, pair) y = Reshape (x, t)",
    "a merged axis": "b = Shape <end = 1> (x) d = Add (b, b) t = Concat <axis = 0> (d, rest) y = Reshape (x, t)",
    "a square": "s = Shape (x) b = Gather (s, scalar0) m = Mul (b, b) c = Cast <to = 1> (m) y = Add (x, c)",
    "a float": "s = Shape (x) f = Cast <to = 1> (s) t = ReduceSum <keepdims = 0> (f) y = Mul (x, t)",
    "a fill": "s = Shape (x) c = ConstantOfShape <value = float[1] {2.0}> (s) y = Mul (x, c)",
    "a range": """s = Shape <end = 1> (x) n = Squeeze (s) r = Range (scalar0, n, scalar1) f = Cast <to = 1> (r)
                  u = Unsqueeze (f, one) y = Add (x, u)""",
    "an element count": """s = Size (x) h = Div (s, scalar2) t = Unsqueeze (h, zero)
                           k = Concat <axis = 0> (t, rest) y = Reshape (x, k)""",
    "a row for every sample": """c = Constant <value = float[1, 4] {1.0, 2.0, 3.0, 4.0}> () s = Shape (x)
                                 e = Expand (c, s) y = Mul (e, x)""",
    "copies": "b = Shape <end = 1> (x) t = Concat <axis = 0> (b, three) y = Tile (x, t)",
    "all but one": "b = Shape <end = 1> (x) l = Sub (b, one) y = Slice (x, zero, l, zero)",
}


@pytest.mark.parametrize("body", DYNAMIC.values(), ids=DYNAMIC)
def test_dynamic_batch_stays_dynamic(body: str) -> None:
    """Shape arithmetic follows the batch size when the module runs."""
    source = network(body, *NUMBERS)
    model = imported(source)
    runtime = reference(source)
    for batch in (1, 2, 7):
        feeds = feed(model, batch=batch)
        found = [y.detach().numpy() for y in run(model, feeds)]
        assert apart(found, runtime.run(None, feeds)) <= TOLERANCE


TARGET = "s = Constant <value_ints = [{}]> () "

FIXED = {
    "a written batch": (2, TARGET.format("2, 3, 4") + "y = Reshape (x, s)"),
    "a batch of one": (1, TARGET.format("1, 12") + "y = Reshape (x, s)"),
    "a batch and the rest": (1, TARGET.format("1, -1, 2") + "y = Reshape (x, s)"),
    "rows of all samples": (2, TARGET.format("6, 4") + "y = Reshape (x, s)"),
    "back from rows": (
        1,
        "r = Constant <value_ints = [3, 4]> () s = Constant <value_ints = [1, 3, 4]> () "
        "a = Reshape (x, r) b = Relu (a) y = Reshape (b, s)",
    ),
    "a batch on axis 1": (
        1,
        TARGET.format("3, 1, 2, 2") + "t = Transpose <perm = [1, 0, 2]> (x) a = Reshape (t, s) "
        "y = Transpose <perm = [1, 0, 2, 3]> (a)",
    ),
    "all samples sliced": (
        2,
        "e = Constant <value_ints = [2]> () y = Slice (x, zero, e, zero)",
    ),
    "an expanded constant": (
        1,
        "c = Constant <value = float[1, 1, 4] {1.0, 2.0, 3.0, 4.0}> () y = Concat <axis = 1> (c, x)",
    ),
    "an expanded tensor": (1, TARGET.format("1, 3, 4") + "y = Expand (x, s)"),
}  # fmt: skip


@pytest.mark.parametrize(("batch", "body"), FIXED.values(), ids=FIXED)
def test_fixed_batches_are_freed(batch: int, body: str) -> None:
    """A file exported at one batch size trains at others."""
    source = network(body, *NUMBERS, inputs=f"float[{batch}, 3, 4] x")
    model = imported(source)
    assert model.batch.fixed == batch
    assert difference(model, source) <= TOLERANCE
    assert accepts_batches(model)
    assert len(model.module(torch.randn(5, 3, 4))) in (5, 15)


@pytest.mark.parametrize(
    "body",
    ["y = ReduceSum <keepdims = 1> (x, zero)", "y = Squeeze (x, zero)", "y = Gather (x, scalar0)"],
    ids=["mixed", "dropped", "chosen"],
)
def test_models_that_take_one_batch_only(body: str) -> None:
    model = imported(network(body, *NUMBERS, inputs="float[1, 3, 4] x"))
    assert not accepts_batches(model)
    assert not model.module.training


def test_second_input_of_the_same_batch() -> None:
    source = network("a = MatMul (m, x) y = Add (a, x)", inputs="float[B, 4, 4] m, float[B, 4, 2] x")
    model = imported(source)
    assert model.batch.axes == {"m": 0, "x": 0}
    assert difference(model, source, batch=3) <= TOLERANCE
    assert accepts_batches(model)


def test_batches_of_truth_values() -> None:
    model = imported(network("bool[] y => a = Relu (x) y = Greater (x, a)", inputs="float[1, 4] x"))
    assert accepts_batches(model)


# -- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("y = example.Mystery (x)", "operator example::Mystery cannot be converted to PyTorch"),
        ("y = NonMaxSuppression (x, x)", "operator NonMaxSuppression cannot be converted"),
        ("i = Cast <to = 7> (x) y = Reshape (x, i)", "node 'y' \\(Reshape\\) .* depends on the data"),
        ("y = Cast <to = 8> (x)", "node 'y' \\(Cast\\) .* PyTorch cannot compute in string"),
        ("y = Cast (x)", "node 'y' \\(Cast\\) .* contradicts its operator"),
    ],
)
def test_refusals_name_node_and_operator(body: str, sentence: str) -> None:
    with pytest.raises(ConversionError, match=sentence):
        imported(network(body))


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])],
        "b",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["flag"], ["y"], "choice", then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    with pytest.raises(ConversionError, match="node 'choice': operator If cannot be converted"):
        imported(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def test_what_nobody_reads_need_not_be_converted() -> None:
    model = imported(network("q = example.Mystery (x) y = Relu (x)"))
    x = torch.randn(2, 4)
    assert torch.equal(model.module(x), torch.relu(x))
