"""Every sample architecture at 30 and 50 %, exact by default, attention by heads, widths and both."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphprune

pytest.importorskip("torch", reason="the samples are built with torch")

from sample_models import SAMPLES, export
from tests.marks import slow

TRANSFORMERS = ("vit", "swin")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


def sample(exported: dict[str, Path], name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if name not in exported:
        exported[name] = export(name, tmp_path_factory.mktemp("samples") / f"{name}.onnx")
    return exported[name]


ALIKE = {"shufflenet_v1", "yolov5_raw", "bisenet_v2_pooled", "resnext50", "resnet18", "vgg16"}
"""Others are much like them."""


@pytest.mark.parametrize("name", slow(sorted(SAMPLES), ALIKE))
def test_sample_prunes_exactly(
    name: str, exported: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = sample(exported, name, tmp_path_factory)
    for sparsity in (0.3, 0.5):
        result = graphprune.prune(path, sparsity=sparsity)
        assert result.fidelity.holds
        assert result.fidelity.exact
        assert not result.fidelity.vacuous
        assert result.plan.budget["achieved"] == pytest.approx(sparsity, abs=0.03)
        share = result.plan.params["after"] / result.plan.params["before"]
        if name not in TRANSFORMERS and sparsity == 0.5:
            assert share < 0.35


@pytest.mark.parametrize("attention", ["heads", "width", "both"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_prune_through_layernorm(
    name: str, attention: str, exported: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = sample(exported, name, tmp_path_factory)
    result = graphprune.prune(path, sparsity=0.5, attention=attention, allow_inexact=True)
    assert result.fidelity.holds
    assert not result.fidelity.exact
    assert any("layer_norm" in n for n in result.fidelity.nodes)
    assert result.plan.params["after"] < 0.4 * result.plan.params["before"]
    share = result.removed_channels / result.analysis.prunable_channels
    assert share == pytest.approx(result.plan.budget["achieved"])
