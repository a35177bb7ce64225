"""ShuffleNet V1 (grouped 1x1 convolutions and channel shuffle) and V2 (channel split and shuffle)."""

import torch
from torch import Tensor, nn

from sample_models.layers import channel_shuffle, conv_bn, conv_bn_relu


class UnitV1(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1.

    Added to the input, or at stride 2 concatenated with its average pool.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, groups: int, first_groups: int
    ) -> None:
        super().__init__()
        inner = out_channels // 4
        branch = out_channels - in_channels if stride == 2 else out_channels
        self.groups = groups
        self.reduce = conv_bn_relu(in_channels, inner, 1, groups=first_groups)
        self.depthwise = conv_bn(inner, inner, 3, stride, groups=inner)
        self.expand = conv_bn(inner, branch, 1, groups=groups)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        branch = self.expand(self.depthwise(channel_shuffle(self.reduce(x), self.groups)))
        if self.pool is None:
            return torch.relu(x + branch)
        return torch.relu(torch.cat((self.pool(x), branch), 1))


class ShuffleNetV1(nn.Module):
    """Three stages; the very first grouped convolution is dense, since its input has few channels."""

    def __init__(
        self,
        groups: int = 3,
        widths: tuple[int, ...] = (24, 240, 480, 960),
        depths: tuple[int, ...] = (4, 8, 4),
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn_relu(3, widths[0], 3, 2), nn.MaxPool2d(3, stride=2, padding=1))
        units: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, depth) in enumerate(zip(widths[1:], depths, strict=True)):
            for index in range(depth):
                first_groups = 1 if stage == 0 and index == 0 else groups
                units.append(UnitV1(channels, width, 2 if index == 0 else 1, groups, first_groups))
                channels = width
        self.units = nn.Sequential(*units)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.units(self.stem(x))), 1))


class UnitV2(nn.Module):
    """Half of the channels pass by, half go through 1x1, depthwise 3x3, 1x1; joined and shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn_relu(half, half, 1), conv_bn(half, half, 3, groups=half), conv_bn_relu(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, used = x.chunk(2, 1)
        return channel_shuffle(torch.cat((kept, self.branch(used)), 1), 2)


class DownUnitV2(nn.Module):
    """Stride 2: both branches see all channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.left = nn.Sequential(
            conv_bn(in_channels, in_channels, 3, 2, groups=in_channels), conv_bn_relu(in_channels, half, 1)
        )
        self.right = nn.Sequential(
            conv_bn_relu(in_channels, half, 1),
            conv_bn(half, half, 3, 2, groups=half),
            conv_bn_relu(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(torch.cat((self.left(x), self.right(x)), 1), 2)


class ShuffleNetV2(nn.Module):
    """`widths`: stem, three stages, and the last 1x1 convolution (the defaults are the paper's 1.0x)."""

    def __init__(
        self,
        widths: tuple[int, ...] = (24, 116, 232, 464, 1024),
        depths: tuple[int, ...] = (4, 8, 4),
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn_relu(3, widths[0], 3, 2), nn.MaxPool2d(3, stride=2, padding=1))
        units: list[nn.Module] = []
        channels = widths[0]
        for width, depth in zip(widths[1:-1], depths, strict=True):
            units.append(DownUnitV2(channels, width))
            units += [UnitV2(width) for _ in range(depth - 1)]
            channels = width
        self.units = nn.Sequential(*units)
        self.last = conv_bn_relu(channels, widths[-1], 1)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.units(self.stem(x)))
        return self.head(x.mean((2, 3)))
