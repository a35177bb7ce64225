"""VGG: plain 3x3 stacks, and three linear layers on a flattened feature map."""

import torch
from torch import Tensor, nn

from sample_models.layers import conv_bn_relu


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each closed by a 2x2 max pool.

    `depths` counts the convolutions per stage.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        width: int = 64,
        hidden: int = 4096,
        num_classes: int = 1000,
        image_size: int = 224,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage, depth in enumerate(depths):
            out_channels = width * min(1 << stage, 8)
            for _ in range(depth):
                if batch_norm:
                    layers.append(conv_bn_relu(channels, out_channels, 3))
                else:
                    layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out_channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels * (image_size >> len(depths)) ** 2, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)  # else the signal dies out where nothing normalises

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def vgg16(num_classes: int = 1000, width: int = 64, hidden: int = 4096, image_size: int = 224) -> VGG:
    """VGG-16 as first published: convolutions with biases, no normalisation."""
    return VGG((2, 2, 3, 3, 3), width, hidden, num_classes, image_size, batch_norm=False)


def vgg19_bn(num_classes: int = 1000, width: int = 64, hidden: int = 4096, image_size: int = 224) -> VGG:
    """VGG-19 with batch normalisation."""
    return VGG((2, 2, 4, 4, 4), width, hidden, num_classes, image_size)
