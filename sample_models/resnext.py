"""ResNeXt: bottlenecks whose 3x3 convolution is grouped."""

import torch
from torch import Tensor, nn

from sample_models.layers import conv_bn, conv_bn_relu


class ResNeXtBlock(nn.Module):
    """1x1 reduce, grouped 3x3, 1x1 expand, and a shortcut."""

    def __init__(
        self, in_channels: int, inner: int, out_channels: int, stride: int, cardinality: int
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn_relu(in_channels, inner, 1),
            conv_bn_relu(inner, inner, 3, stride, groups=cardinality),
            conv_bn(inner, out_channels, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv_bn(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNeXt(nn.Module):
    """`cardinality` groups of `group_width` channels in the first stage; widths double per stage."""

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        cardinality: int = 32,
        group_width: int = 4,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn_relu(3, width, 7, 2), nn.MaxPool2d(3, stride=2, padding=1))
        blocks: list[nn.Module] = []
        channels = width
        for stage, depth in enumerate(depths):
            inner, out_channels = cardinality * group_width << stage, 4 * width << stage
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(ResNeXtBlock(channels, inner, out_channels, stride, cardinality))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))
