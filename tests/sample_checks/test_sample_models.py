"""Every sample exports to a valid, small ONNX file that computes what the PyTorch module computes."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")

import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402

import sample_models  # noqa: E402
from sample_models.export import export_module  # noqa: E402
from sample_models.layers import noise_images  # noqa: E402
from sample_models.zoo import SAMPLES, build, export  # noqa: E402
from tests.marks import slow  # noqa: E402

FOLDER = Path(sample_models.__file__).parent
ALIKE = {"yolov5_raw", "bisenet_v2_pooled", "shufflenet_v1", "resnet18", "vgg16"}
"""Others are much like them."""
ROOT = FOLDER.parent
RESNET_OPERATORS = {"Conv", "BatchNormalization", "Relu", "Add", "ReduceMean", "Reshape", "Gemm"}
WITHOUT_BATCH_NORM = {"vgg16", "vit", "swin"}
Arrays = list[npt.NDArray[np.float32]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(path: Path, images: npt.NDArray[np.float32]) -> Arrays:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, {"input": images})]


@pytest.mark.filterwarnings("ignore")  # torch.onnx.export warns about its own internals
@pytest.mark.parametrize("name", slow(SAMPLES, ALIKE))
def test_export_computes_what_the_module_computes(name: str, tmp_path: Path) -> None:
    path = export(name, tmp_path / f"{name}.onnx")
    onnx.checker.check_model(path, full_check=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no external data
    assert path.stat().st_size < 10e6

    module, sample = build(name), SAMPLES[name]
    for batch in (1, 3):  # exported from a batch of two
        images = noise_images((batch, *sample.input_shape()), torch.Generator().manual_seed(batch))
        with torch.no_grad():
            result = module(images)
        expected = [y.numpy() for y in (result if isinstance(result, tuple) else (result,))]
        actual = run(path, images.numpy())
        assert len(actual) == len(expected) == len(sample.outputs)
        for y, z in zip(actual, expected, strict=True):
            scale = max(1.0, float(np.abs(z).max()))
            assert scale < 1000
            np.testing.assert_allclose(y, z, rtol=0, atol=1e-4 * scale)
            if batch > 1:
                assert float(z.std(axis=0).max()) > 0.01  # the output depends on the input

    model = onnx.load(path)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(ROOT).encode() not in path.read_bytes()
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == sum(isinstance(m, torch.nn.BatchNorm2d) for m in module.modules())
    assert bool(norms) == (name not in WITHOUT_BATCH_NORM)


def test_seed_decides_the_weights() -> None:
    first, again, other = (build("resnet20", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    changed = [
        key for key in first if first[key].is_floating_point() and not torch.equal(first[key], other[key])
    ]
    assert len(changed) == sum(value.is_floating_point() for value in first.values())


@pytest.mark.parametrize(
    ("name", "millions"),
    # published counts: torchvision's table, the papers for ResNet-20 and WRN-28-10, YOLOv5's own for 5s
    [
        ("resnet20", 0.27),
        ("resnet18", 11.69),
        ("resnet50", 25.56),
        ("vgg16", 138.36),
        ("vgg19_bn", 143.68),
        ("wide_resnet", 36.5),
        ("resnext50", 25.03),
        ("shufflenet_v2", 2.28),
        ("mobilenet_v2", 3.50),
        ("densenet", 7.98),
        ("yolov5", 7.2),
        ("vit", 86.57),
        ("swin", 28.29),
    ],
)
def test_full_size_has_the_published_parameter_count(name: str, millions: float) -> None:
    sample = SAMPLES[name]
    with torch.device("meta"):
        module = sample.builder(**sample.full)
    count = sum(p.numel() for p in module.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.02)


@pytest.mark.filterwarnings("ignore")
def test_export_keeps_equal_weights_apart_and_ignores_memory_format(tmp_path: Path) -> None:
    module = build("resnet20")
    for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.zeros_(norm.bias)
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    model = onnx.load(export_module(module, tmp_path / "resnet20.onnx", images, ("logits",)))
    biases = [node.input[2] for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(set(biases)) == len(biases) == 21
    assert {node.op_type for node in model.graph.node} == RESNET_OPERATORS


def test_pooled_bisenet_computes_the_same_function() -> None:
    mean, pooled = build("bisenet_v2"), build("bisenet_v2_pooled")
    pooled.load_state_dict(mean.state_dict())
    images = noise_images((2, *SAMPLES["bisenet_v2"].input_shape()), torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(pooled(images), mean(images), rtol=0, atol=1e-4)


def test_unknown_sample_is_named() -> None:
    with pytest.raises(KeyError, match=r"resnet21.*resnet20"):
        build("resnet21")


def test_command_line_lists_every_sample() -> None:
    command = [sys.executable, "-m", "sample_models", "--list"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(SAMPLES)


def test_trained_resnet20_recognises_the_shipped_images() -> None:
    data = np.load(FOLDER / "cifar10_eval.npz")
    images = ((data["input_u8"] / np.float32(255) - data["mean"]) / data["std"]).astype(np.float32)
    (logits,) = run(FOLDER / "resnet20_cifar10.onnx", images)
    assert (logits.argmax(1) == data["labels"]).mean() == pytest.approx(0.8867, abs=0.005)  # as in the README

    model = onnx.load(FOLDER / "resnet20_cifar10.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert sum(node.op_type == "BatchNormalization" for node in model.graph.node) == 21
    assert {node.op_type for node in model.graph.node} == RESNET_OPERATORS


def test_shipped_files_are_small() -> None:
    assert (FOLDER / "resnet20_cifar10.onnx").stat().st_size < 1.3e6
    assert (FOLDER / "cifar10_eval.npz").stat().st_size < 2e6
    assert not list(FOLDER.glob("*.data"))


def test_every_function_and_class_is_documented() -> None:
    missing = [
        f"{path.name}: {node.name}"
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and node.name != "forward"
        and not ast.get_docstring(node)
    ]
    assert not missing
