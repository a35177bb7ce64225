"""Quantised files as onnxruntime's own quantiser writes them: scales and zero points go with their channels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

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


def test_pruned_network_quantises(tmp_path: Path) -> None:
    pruned = graphprune.prune(MODEL, sparsity=0.5).save(tmp_path / "small.onnx")
    quantize_static(pruned, tmp_path / "small.int8.onnx", Noise(), quant_format=QuantFormat.QDQ)
    assert (tmp_path / "small.int8.onnx").stat().st_size < pruned.stat().st_size / 2
