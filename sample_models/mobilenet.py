"""MobileNet V2: inverted residuals with depthwise convolutions and ReLU6."""

import torch
from torch import Tensor, nn

from sample_models.layers import conv_bn

# expansion, channels, blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def round_channels(channels: float) -> int:
    """Nearest multiple of eight, at least eight, and never more than a tenth below `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """1x1 expand, depthwise 3x3, linear 1x1; added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        expand = [conv_bn(in_channels, inner, 1), nn.ReLU6(inplace=True)] if expansion != 1 else []
        self.body = nn.Sequential(
            *expand,
            conv_bn(inner, inner, 3, stride, groups=inner),
            nn.ReLU6(inplace=True),
            conv_bn(inner, out_channels, 1),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """`width` multiplies every channel count but that of the last 1x1 convolution."""

    def __init__(self, width: float = 1.0, last: int = 1280, num_classes: int = 1000) -> None:
        super().__init__()
        channels = round_channels(32 * width)
        layers: list[nn.Module] = [conv_bn(3, channels, 3, 2), nn.ReLU6(inplace=True)]
        for expansion, base, depth, first_stride in STAGES:
            for index in range(depth):
                out_channels = round_channels(base * width)
                stride = first_stride if index == 0 else 1
                layers.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        layers += [conv_bn(channels, last, 1), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.features(x)), 1))
