"""What the commands in README are run on: every file that they name, small."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import graphprune

ROOT = Path(__file__).resolve().parents[1]
SIZE = 16

MODELS = """
import torch
from torch import nn


def resnet():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=8), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )
"""

LOADERS = """
import torch


def loaders():
    x = torch.rand(16, 3, 16, 16)
    return torch.utils.data.DataLoader(list(zip(x, torch.arange(16) % 4)), batch_size=8)
"""


def network(size: int | None = None) -> onnx.ModelProto:
    """conv1, four residual blocks (layer1 to layer4) with BatchNormalization, head.conv, fc; None is any size."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def stored(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(x: str, name: str, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> str:
        scale = (2 / inputs / side**2) ** 0.5
        w = stored(f"{name}.weight", scale * rng.standard_normal((outputs, inputs, side, side)))
        words = {"pads": [side // 2] * 4, "strides": [stride] * 2}
        nodes.append(helper.make_node("Conv", [x, w], [name], name, **words))
        numbers = {"scale": rng.uniform(0.5, 1.5, outputs), "bias": np.zeros(outputs)}
        numbers |= {"mean": np.zeros(outputs), "var": np.ones(outputs)}
        read = [stored(f"{name}.bn.{kind}", array) for kind, array in numbers.items()]
        nodes.append(helper.make_node("BatchNormalization", [name, *read], [f"{name}.out"], f"{name}.bn"))
        return f"{name}.out"

    def relu(x: str) -> str:
        nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"], f"{x}.relu"))
        return f"{x}.relu"

    x = relu(conv("input", "conv1", 3, 16, stride=8))
    for i in range(1, 5):
        inner = conv(relu(conv(x, f"layer{i}.conv1", 16, 32)), f"layer{i}.conv2", 32, 16)
        nodes.append(helper.make_node("Add", [x, inner], [f"layer{i}.sum"], f"layer{i}.sum"))
        x = relu(f"layer{i}.sum")
    x = relu(conv(x, "head.conv", 16, 32, side=1))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"], "mean"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], "flat"))
    fc = [stored("fc.weight", rng.standard_normal((4, 32))), stored("fc.bias", np.zeros(4))]
    nodes.append(helper.make_node("Gemm", ["flat", *fc], ["logits"], "fc", transB=1))
    graph = helper.make_graph(
        nodes,
        "network",
        [
            helper.make_tensor_value_info(
                "input", TensorProto.FLOAT, ["batch", 3, size or "height", size or "width"]
            )
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_inputs(folder: Path, target: str) -> None:
    """Images, code, a trained model; ``target``: TOML of a target."""
    shutil.copy(ROOT / "sample_models" / "resnet20_cifar10.onnx", folder / "resnet20.onnx")
    rng = np.random.default_rng(0)
    x = rng.random((16, 3, SIZE, SIZE)).astype(np.float32)
    np.savez(folder / "images.npz", input=x)
    np.savez(folder / "labelled.npz", input=x, labels=np.arange(16) % 4)
    for name in ("photos", "train", "val"):
        _images(folder / name, rng)
    (folder / "my-chip.toml").write_text(target, encoding="utf-8")
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "__init__.py").touch()
    (folder / "mypackage" / "models.py").write_text(MODELS, encoding="utf-8")
    (folder / "mydata.py").write_text(LOADERS, encoding="utf-8")


def _budget(words: list[str]) -> dict[str, Any]:
    """What a target needs, where one is checked."""
    if "check" not in words:
        return {"sparsity": 0.3}
    if "tensorrt-2to4" in words:
        return {"structure": "nm", "nm": "2:4"}
    return {"structure": "block", "block": "16x8x1x1", "sparsity": 0.5}


def _images(folder: Path, rng: np.random.Generator) -> None:
    """Two images of each of four classes."""
    from PIL import Image

    for kind in range(4):
        place = folder / f"class{kind}"
        place.mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")


def write_models(words: list[str]) -> None:
    """model.onnx, of any size where a command says one, and what earlier commands have written where one reads it."""
    onnx.save(network(None if {"--resize", "--input-shape"} & set(words) else SIZE), "model.onnx")
    read = [w for before, w in zip(["", *words], words, strict=False) if before not in ("-o", "--html")]
    if {"small.onnx", "small.plan.json"} & set(read):
        original = "resnet20.onnx" if "resnet20.onnx" in words else "model.onnx"
        graphprune.prune(original, **_budget(words)).save("small.onnx")
    if "model.pruned.onnx" in read:
        graphprune.prune("model.onnx", sparsity=0.5).save("model.pruned.onnx")
    if "npu.onnx" in read:
        graphprune.rewrite("model.onnx", target="npu-16x8").save("npu.onnx")
