"""The main promise on files nobody here made: pruned and proved, or refused with a true reason."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx.inliner
import pytest

import graphprune
from tests.real_models import LIGHT_NAMES, light_model, shared_models

SPARSITIES = (0.3, 0.5)

# The file -> why nothing can go. Anything else must be pruned.
REFUSED = {
    "NVIDIA__attention_head": "the tensor's shape is not known",
}


NUMBERS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
)


def count_parameters(model: onnx.ModelProto) -> int:
    """Elements of every floating-point or 8-bit initializer and Constant node, local functions inlined."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors += [a.t for a in node.attribute if a.name == "value"]
    return sum(math.prod(t.dims) for t in tensors if t.data_type in NUMBERS)


def check(source: Path | onnx.ModelProto, sparsity: float) -> graphprune.PruneResult:
    """Prune, and assert the proof, the budget and the written model."""
    result = graphprune.prune(source, sparsity=sparsity)
    assert result.fidelity.holds, result.fidelity.message
    assert not result.fidelity.vacuous, result.fidelity.message
    assert result.fidelity.exact
    achieved = result.plan.budget["achieved"]
    largest_step = 16 / max(result.analysis.prunable_channels, 1) * 4
    assert abs(achieved - sparsity) <= largest_step, (achieved, sparsity)
    written = result.model.to_onnx()
    onnx.checker.check_model(written)
    # counted from the files, not by the cost model that chose
    original = source if isinstance(source, onnx.ModelProto) else onnx.load(source)
    gone = count_parameters(original) - count_parameters(written)
    assert gone == result.plan.params["before"] - result.plan.params["after"]
    return result


LARGE = ("bvlc_alexnet", "vgg19", "zfnet512")
"""Hundreds of megabytes of weights: one sparsity is enough for the time they take."""


@pytest.mark.parametrize(
    ("name", "sparsity"),
    [(n, s) for n in LIGHT_NAMES for s in SPARSITIES if n not in LARGE]
    + [pytest.param(n, 0.5, marks=pytest.mark.slow) for n in LARGE if n != "bvlc_alexnet"]
    + [("bvlc_alexnet", 0.5)],
)
def test_networks_of_the_onnx_package(name: str, sparsity: float) -> None:
    result = check(light_model(name), sparsity)
    after = result.plan.params["after"] / result.plan.params["before"]
    assert after < (0.75 if sparsity == 0.3 else 0.40)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("path", shared_models(), ids=lambda p: p.stem)
def test_third_party_files(path: Path, sparsity: float) -> None:
    if path.stem in REFUSED:
        with pytest.raises(graphprune.BudgetError, match=REFUSED[path.stem]):
            graphprune.prune(path, sparsity=sparsity)
        return
    if path.stem.startswith("microsoft__fns_candy") and sparsity == 0.3:
        pytest.skip("20 GMACs at a fixed 720 x 720: one sparsity is enough for the time it takes")
    check(path, sparsity)


@pytest.mark.skipif(bool(shared_models()), reason="the folder of third-party models is present")
def test_third_party_files_are_absent() -> None:
    pytest.skip("no ../shared/models beside the repository: third-party files are not tested")


def test_shufflenet_keeps_its_freedom() -> None:
    """Position ties would leave 251 coupled channels of the real ShuffleNet."""
    analysis = graphprune.analyze(light_model("shufflenet"))
    assert sum(g.channels.size for g in analysis.groups if g.prunable) >= 5000


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50", 11456),
        ("densenet121", 10240),
        ("inception_v2", 9952),
        ("squeezenet", 2944),
        pytest.param("vgg19", 13696, marks=pytest.mark.slow),
    ],
)
def test_coupled_channels_of_known_networks(name: str, channels: int) -> None:
    """Counted independently, from the layers' widths: e.g. ResNet-50's stages and bottlenecks."""
    analysis = graphprune.analyze(light_model(name))
    assert sum(g.channels.size for g in analysis.groups if g.prunable) == channels


def test_quantised_yolo_is_inexact_and_named() -> None:
    """Dynamic quantisation takes the range over all channels, so most of it is only prunable inexactly."""
    path = next((p for p in shared_models() if "yolov8n-seg_int8" in p.stem), None)
    if path is None:
        pytest.skip("no ../shared/models beside the repository")
    result = graphprune.prune(path, sparsity=0.5, allow_inexact=True)
    assert result.fidelity.holds
    assert not result.fidelity.exact
    assert result.fidelity.nodes
    assert result.plan.params["after"] < 0.4 * result.plan.params["before"]
