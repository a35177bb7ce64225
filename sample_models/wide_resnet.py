"""Wide ResNet: pre-activation blocks (BatchNorm and ReLU before each convolution) on 32x32 images."""

import torch
from torch import Tensor, nn


class PreActivationBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice.

    A projection shortcut takes the pre-activated input, an identity shortcut the raw one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.projection: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = torch.relu(self.bn1(x))
        shortcut = x if self.projection is None else self.projection(activated)
        return shortcut + self.conv2(torch.relu(self.bn2(self.conv1(activated))))


class WideResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels times `widen`; `depth` is 6 n + 4."""

    def __init__(self, depth: int = 28, widen: int = 10, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        blocks: list[nn.Module] = []
        channels = 16
        for stage in range(3):
            for index in range((depth - 4) // 6):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(PreActivationBlock(channels, (16 << stage) * widen, stride))
                channels = (16 << stage) * widen
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(torch.flatten(self.pool(x), 1))
