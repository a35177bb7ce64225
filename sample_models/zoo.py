"""The registry of samples: what each is built from, at its small default size and at the paper's."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sample_models.bisenet import BiSeNetV2
from sample_models.densenet import DenseNet
from sample_models.export import export_module
from sample_models.googlenet import GoogLeNet
from sample_models.layers import calibrate, noise_images
from sample_models.mobilenet import MobileNetV2
from sample_models.resnet import resnet18, resnet20, resnet50
from sample_models.resnext import ResNeXt
from sample_models.shufflenet import ShuffleNetV1, ShuffleNetV2
from sample_models.swin import Swin
from sample_models.vgg import vgg16, vgg19_bn
from sample_models.vit import ViT
from sample_models.wide_resnet import WideResNet
from sample_models.yolo import YOLOv5


@dataclass(frozen=True)
class Sample:
    """`builder(**small)` is the sample, for images of `size`; `builder(**full)` is the paper's network."""

    builder: Callable[..., nn.Module]
    size: tuple[int, int]
    full_size: tuple[int, int] = (224, 224)
    small: dict[str, Any] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("logits",)

    def input_shape(self, full: bool = False) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (3, *(self.full_size if full else self.size))


BISENET_SMALL = {"num_classes": 8, "width": 32, "head": 128}
VGG_SMALL = {"num_classes": 10, "width": 16, "hidden": 256, "image_size": 64}
YOLO_SMALL = {"num_classes": 3, "width": 16, "image_size": 128}

SAMPLES: dict[str, Sample] = {
    "resnet20": Sample(resnet20, (32, 32), (32, 32)),
    "resnet18": Sample(resnet18, (64, 64), small={"num_classes": 10, "width": 16}),
    "resnet50": Sample(resnet50, (64, 64), small={"num_classes": 10, "width": 16}),
    "vgg16": Sample(vgg16, (64, 64), small=VGG_SMALL),
    "vgg19_bn": Sample(vgg19_bn, (64, 64), small=VGG_SMALL),
    "wide_resnet": Sample(WideResNet, (32, 32), (32, 32), small={"depth": 16, "widen": 2}),
    "resnext50": Sample(ResNeXt, (64, 64), small={"width": 16, "cardinality": 8, "num_classes": 10}),
    "shufflenet_v1": Sample(ShuffleNetV1, (64, 64), small={"widths": (24, 60, 120, 240), "num_classes": 10}),
    "shufflenet_v2": Sample(
        ShuffleNetV2, (64, 64), small={"widths": (24, 48, 96, 192, 256), "num_classes": 10}
    ),
    "mobilenet_v2": Sample(MobileNetV2, (64, 64), small={"width": 0.35, "last": 320, "num_classes": 10}),
    "densenet": Sample(DenseNet, (64, 64), small={"growth": 8, "depths": (4, 6, 8, 6), "num_classes": 10}),
    "googlenet": Sample(GoogLeNet, (64, 64), small={"width": 0.25, "num_classes": 10}),
    "bisenet_v2": Sample(BiSeNetV2, (64, 128), (512, 1024), small=BISENET_SMALL),
    "bisenet_v2_pooled": Sample(
        BiSeNetV2,
        (64, 128),
        (512, 1024),
        small={**BISENET_SMALL, "pooled_size": (64, 128)},
        full={"pooled_size": (512, 1024)},
    ),
    "yolov5": Sample(YOLOv5, (128, 128), (640, 640), small=YOLO_SMALL, outputs=("boxes",)),
    "yolov5_raw": Sample(
        YOLOv5,
        (128, 128),
        (640, 640),
        small={**YOLO_SMALL, "decode": False},
        full={"decode": False},
        outputs=("stride8", "stride16", "stride32"),
    ),
    "vit": Sample(
        ViT,
        (64, 64),
        small={"num_classes": 10, "dim": 96, "depth": 4, "heads": 4, "patch": 8, "image_size": 64},
    ),
    "swin": Sample(
        Swin,
        (64, 64),
        small={
            "num_classes": 10,
            "dim": 48,
            "depths": (2, 2),
            "heads": (3, 6),
            "window": 4,
            "image_size": 64,
        },
    ),
}


def build(name: str, seed: int = 0, full: bool = False) -> nn.Module:
    """The sample in evaluation mode: weights drawn from `seed`, normalisations calibrated on noise."""
    sample = find(name)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = sample.builder(**(sample.full if full else sample.small))
    calibrate(model, sample.input_shape(full), seed)
    return model


def export(name: str, path: Path | str, seed: int = 0, full: bool = False) -> Path:
    """Build the sample and write it as ONNX."""
    sample = find(name)
    example = noise_images((2, *sample.input_shape(full)), torch.Generator().manual_seed(seed))
    return export_module(build(name, seed, full), Path(path), example, sample.outputs)


def find(name: str) -> Sample:
    """The registered sample, or a KeyError that lists them."""
    if name not in SAMPLES:
        raise KeyError(f"no sample named {name!r}; there are: {', '.join(SAMPLES)}")
    return SAMPLES[name]
