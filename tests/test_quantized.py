"""Quantised files as onnxruntime's own quantiser writes them: scales and zero points go with their channels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import graphprune

MODEL = Path(__file__).resolve().parents[1] / "sample_models" / "resnet20_cifar10.onnx"


class Noise(CalibrationDataReader):
    """Two batches of standard normal images."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.left = [{"input": rng.standard_normal((2, 3, 32, 32)).astype(np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8], ids=lambda w: w.name)
@pytest.mark.parametrize("per_channel", [True, False], ids=["per-channel", "per-tensor"])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=lambda f: f.name)
def test_quantised_network(form: QuantFormat, per_channel: bool, weights: QuantType, tmp_path: Path) -> None:
    source = shutil.copy(MODEL, tmp_path)  # the quantiser writes beside its input
    path = tmp_path / "quantised.onnx"
    quantize_static(
        source,
        path,
        Noise(),
        quant_format=form,
        per_channel=per_channel,
        weight_type=weights,
        activation_type=QuantType.QUInt8,
    )
    result = graphprune.prune(path, sparsity=0.5)
    assert result.fidelity.holds
    assert not result.fidelity.vacuous
    assert result.fidelity.exact
    assert result.plan.params["after"] < 0.35 * result.plan.params["before"]
    assert result.fidelity.tolerance == 2e-2  # a sum in another order may round to the next step


def test_pruned_network_quantises_and_runs(tmp_path: Path) -> None:
    """With onnxruntime's own quantiser, static and dynamic; classes are those of the pruned network."""
    pruned = graphprune.prune(MODEL, sparsity=0.3).save(tmp_path / "small.onnx")
    quantize_static(pruned, tmp_path / "static.onnx", Noise(), quant_format=QuantFormat.QDQ, per_channel=True)
    quantize_dynamic(pruned, tmp_path / "dynamic.onnx")
    x = np.random.default_rng(1).standard_normal((64, 3, 32, 32)).astype(np.float32)
    wanted = classes(pruned, x)
    for name in ("static.onnx", "dynamic.onnx"):
        assert (tmp_path / name).stat().st_size < pruned.stat().st_size / 2
        assert (classes(tmp_path / name, x) == wanted).mean() > 0.7


def classes(path: Path, x: np.ndarray) -> np.ndarray:
    """What a network says of images."""
    (logits,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    return logits.argmax(1)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Int8 weights per channel, QDQ."""
    folder = tmp_path_factory.mktemp("quantised")
    source = shutil.copy(MODEL, folder)
    quantize_static(source, folder / "q.onnx", Noise(), quant_format=QuantFormat.QDQ, per_channel=True)
    return folder / "q.onnx"


@pytest.mark.parametrize("method", ["flap", "obs"])
def test_looking_at_inputs(method: str, quantised: Path) -> None:
    """Quantised weights have no least-squares fit; what is removed is proved as ever."""
    x = np.random.default_rng(1).standard_normal((32, 3, 32, 32)).astype(np.float32)
    result = graphprune.prune(quantised, sparsity=0.3, method=method, data=[{"input": x}])
    assert result.fidelity.holds
    assert result.plan.budget["achieved"] == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("words", [{"structure": "nm"}, {"structure": "block", "sparsity": 0.5}])
def test_patterns_are_for_floating_point(words: dict, quantised: Path) -> None:
    with pytest.raises(graphprune.BudgetError, match="then quantise it"):
        graphprune.prune(quantised, **words)
