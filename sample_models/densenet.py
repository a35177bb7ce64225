"""DenseNet: every layer reads the concatenation of all earlier outputs of its block."""

import torch
from torch import Tensor, nn


def norm_conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """BatchNorm, ReLU, same-padded convolution."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
    )


class DenseLayer(nn.Module):
    """A 1x1 to four growths, a 3x3 to one; the result is appended to the input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(norm_conv(in_channels, 4 * growth, 1), norm_conv(4 * growth, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.body(x)), 1)


class DenseNet(nn.Module):
    """DenseNet-BC; the defaults give DenseNet-121. Transitions halve the channels and the resolution."""

    def __init__(
        self, growth: int = 32, depths: tuple[int, ...] = (6, 12, 24, 16), num_classes: int = 1000
    ) -> None:
        super().__init__()
        channels = 2 * growth
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        for block, depth in enumerate(depths):
            if block > 0:
                layers += [norm_conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
                channels //= 2
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.features(x)), 1))
