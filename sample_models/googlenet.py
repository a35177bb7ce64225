"""GoogLeNet (Inception v1, with batch normalisation, without the auxiliary heads)."""

import torch
from torch import Tensor, nn

from sample_models.layers import conv_bn_relu

# 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection. None: max pool
MODULES = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


class Inception(nn.Module):
    """Four parallel branches, concatenated."""

    def __init__(
        self, in_channels: int, one: int, red3: int, three: int, red5: int, five: int, pool: int
    ) -> None:
        super().__init__()
        self.branch1 = conv_bn_relu(in_channels, one, 1)
        self.branch3 = nn.Sequential(conv_bn_relu(in_channels, red3, 1), conv_bn_relu(red3, three, 3))
        self.branch5 = nn.Sequential(conv_bn_relu(in_channels, red5, 1), conv_bn_relu(red5, five, 5))
        self.branch_pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), conv_bn_relu(in_channels, pool, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)), 1)


def down_pool() -> nn.MaxPool2d:
    """The pool between stages, rounding its output size up."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class GoogLeNet(nn.Module):
    """`width` multiplies every channel count."""

    def __init__(self, width: float = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        stem, channels = int(64 * width), int(192 * width)
        layers: list[nn.Module] = [
            conv_bn_relu(3, stem, 7, 2),
            down_pool(),
            conv_bn_relu(stem, stem, 1),
            conv_bn_relu(stem, channels, 3),
            down_pool(),
        ]
        for module in MODULES:
            if module is None:
                layers.append(down_pool())
                continue
            one, red3, three, red5, five, pool = (int(c * width) for c in module)
            layers.append(Inception(channels, one, red3, three, red5, five, pool))
            channels = one + three + five + pool
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.features(x)), 1))
