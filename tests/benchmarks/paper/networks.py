"""The networks: which task, how they are built, and how long the dense ones are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.paper import camvid
from tests.benchmarks.paper.store import RESULTS
from tests.benchmarks.paper.tasks import TASKS, Task
from tests.benchmarks.trained import ROOT

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """``build()`` gives the untrained module; ``epochs``, ``lr``, ``decay``, ``optimizer``: of the dense training.
    ``steps``: batches of a row, the same for every method; 390 is one epoch of CIFAR-10 in batches of 128, and
    8.5 epochs of CamVid and 7.6 of BCCD in batches of 8.

    ``amp``: mixed precision, where the machine multiplies bfloat16 itself (it halves the speed of depthwise
    convolutions on a CPU; where it is emulated, everything takes two to seven times as long). ``file``: a network
    that the sample models have trained.
    """

    name: str
    title: str
    task: Task
    build: Callable[[], nn.Module] | None = None
    epochs: int = 0
    lr: float = 0.1
    decay: float = 5e-4
    optimizer: str = "sgd"
    steps: int = 390
    outputs: tuple[str, ...] = ("logits",)
    amp: str = "bf16"
    file: Path | None = None

    @property
    def path(self) -> Path:
        """The trained network."""
        return self.file or RESULTS / "dense" / f"{self.name}.onnx"

    @property
    def precision(self) -> str:
        """``bf16`` or ``none``: what it is trained in on this machine."""
        import torch

        if torch.cuda.is_available():
            return self.amp
        able = torch.cpu.get_capabilities()
        return self.amp if any(able.get(k) for k in ("avx512_bf16", "amx_bf16")) else "none"


def _resnet20() -> nn.Module:
    from sample_models.resnet import resnet20

    return resnet20()


def _resnet56() -> nn.Module:
    from sample_models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, (9, 9, 9), 16, 10, cifar_stem=True)


def _small_stem(module: nn.Module) -> nn.Module:
    """For images of 32x32: the first convolution keeps the resolution."""
    from torch import nn

    first = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    first.stride = (1, 1)
    return module


def _resnet18() -> nn.Module:
    from sample_models.resnet import resnet18

    return _small_stem(resnet18(10, 16))


def _mobilenet() -> nn.Module:
    from sample_models.mobilenet import MobileNetV2

    return MobileNetV2(width=0.5, last=320, num_classes=10)


def _densenet() -> nn.Module:
    from sample_models.densenet import DenseNet

    return _small_stem(DenseNet(growth=8, depths=(4, 6, 8, 6), num_classes=10))


def _googlenet() -> nn.Module:
    from sample_models.googlenet import GoogLeNet

    return _small_stem(GoogLeNet(width=0.25, num_classes=10))


def _vit() -> nn.Module:
    from sample_models.vit import ViT

    return ViT(num_classes=10, dim=96, depth=4, heads=4, patch=4, image_size=32)


def _swin() -> nn.Module:
    from sample_models.swin import Swin

    return Swin(num_classes=10, dim=64, depths=(2, 2), heads=(4, 8), window=4, patch=4, image_size=32)


def _bisenet() -> nn.Module:
    from sample_models.bisenet import BiSeNetV2

    return BiSeNetV2(num_classes=camvid.CLASSES, width=32, head=128, pooled_size=camvid.SHAPE[1:])


def _yolov5() -> nn.Module:
    from sample_models.yolo import YOLOv5

    return YOLOv5(num_classes=3, width=16, decode=False)


_ADAMW: dict[str, Any] = {"optimizer": "adamw", "lr": 1e-3, "decay": 0.05}
_CIFAR, _CAMVID, _BCCD = TASKS["cifar10"], TASKS["camvid"], TASKS["bccd"]

NETWORKS = {
    network.name: network
    for network in (
        Network(
            "resnet20",
            "ResNet-20",
            _CIFAR,
            _resnet20,
            file=ROOT / "sample_models" / "resnet20_cifar10.onnx",
        ),
        Network("resnet18", "ResNet-18 (width 16)", _CIFAR, _resnet18, epochs=5),
        Network("mobilenet", "MobileNetV2 (x 0.5)", _CIFAR, _mobilenet, epochs=5, amp="none"),
        Network("densenet", "DenseNet-BC (growth 8)", _CIFAR, _densenet, epochs=5),
        Network("googlenet", "GoogLeNet (x 0.25)", _CIFAR, _googlenet, epochs=5),
        Network("vit", "ViT (4 blocks of 96)", _CIFAR, _vit, epochs=8, **_ADAMW),
        Network("swin", "Swin (2 + 2 blocks of 64)", _CIFAR, _swin, epochs=6, **_ADAMW),
        Network("bisenet", "BiSeNetV2 (width 32)", _CAMVID, _bisenet, epochs=60, lr=0.05),
        Network(
            "yolov5",
            "YOLOv5-style (width 16)",
            _BCCD,
            _yolov5,
            epochs=40,
            optimizer="adamw",
            lr=2e-3,
            outputs=("stride8", "stride16", "stride32"),
        ),
        Network("resnet56", "ResNet-56", _CIFAR, _resnet56, epochs=3, steps=195),
    )
}
