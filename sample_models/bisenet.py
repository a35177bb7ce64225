"""BiSeNet V2: a wide shallow branch for detail, a narrow deep one for meaning, joined by guided gates."""

import torch
from torch import Tensor, nn

from sample_models.layers import conv_bn, conv_bn_relu


class GatherExpansion(nn.Module):
    """3x3, a depthwise 3x3 that multiplies the channels by six, linear 1x1; added to the input."""

    def __init__(self, channels: int, expansion: int = 6) -> None:
        super().__init__()
        inner = channels * expansion
        self.body = nn.Sequential(
            conv_bn_relu(channels, channels, 3),
            conv_bn_relu(channels, inner, 3, groups=channels),
            conv_bn(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class GatherExpansionDown(nn.Module):
    """The same at stride 2: two depthwise 3x3 in the body, a separable convolution as the shortcut."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int = 6) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.body = nn.Sequential(
            conv_bn_relu(in_channels, in_channels, 3),
            conv_bn(in_channels, inner, 3, 2, groups=in_channels),
            conv_bn_relu(inner, inner, 3, groups=inner),
            conv_bn(inner, out_channels, 1),
        )
        self.shortcut = nn.Sequential(
            conv_bn(in_channels, in_channels, 3, 2, groups=in_channels), conv_bn(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Stem(nn.Module):
    """To a quarter of the resolution along a convolution and a max pool, concatenated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(3, width, 3, 2)
        self.left = nn.Sequential(conv_bn_relu(width, width // 2, 1), conv_bn_relu(width // 2, width, 3, 2))
        self.right = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = conv_bn_relu(2 * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.fuse(torch.cat((self.left(x), self.right(x)), 1))


class ContextEmbedding(nn.Module):
    """Adds the globally pooled context to every position (ReduceMean, then broadcasting)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.context = conv_bn_relu(channels, channels, 1)
        self.fuse = conv_bn_relu(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(x + self.context(self.norm(x.mean((2, 3), keepdim=True))))


class PooledContextEmbedding(ContextEmbedding):
    """The same function without ReduceMean or broadcasting, for targets that lack them.

    Two average pools (down the rows, then along the columns) make the 1x1 context, a Resize spreads it again.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__(channels)
        height, width = size
        self.pool = nn.Sequential(nn.AvgPool2d((height, 1)), nn.AvgPool2d((1, width)))
        self.spread = nn.Upsample(scale_factor=(float(height), float(width)), mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(x + self.spread(self.context(self.norm(self.pool(x)))))


def separable(channels: int) -> nn.Sequential:
    """Depthwise 3x3 with BatchNorm, then a 1x1 convolution without."""
    return nn.Sequential(
        conv_bn(channels, channels, 3, groups=channels), nn.Conv2d(channels, channels, 1, bias=False)
    )


def upsample(factor: int) -> nn.Upsample:
    """Bilinear enlargement."""
    return nn.Upsample(scale_factor=float(factor), mode="bilinear", align_corners=False)


class GuidedAggregation(nn.Module):
    """Each branch is gated by the sigmoid of the other, at the resolution of the one that is gated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail_keep = separable(channels)
        self.detail_down = nn.Sequential(
            conv_bn(channels, channels, 3, 2), nn.AvgPool2d(3, stride=2, padding=1)
        )
        self.semantic_up = nn.Sequential(conv_bn(channels, channels, 3), upsample(4))
        self.semantic_keep = separable(channels)
        self.enlarge = upsample(4)
        self.fuse = conv_bn_relu(channels, channels, 3)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        fine = self.detail_keep(detail) * torch.sigmoid(self.semantic_up(semantic))
        coarse = self.detail_down(detail) * torch.sigmoid(self.semantic_keep(semantic))
        return self.fuse(fine + self.enlarge(coarse))


class BiSeNetV2(nn.Module):
    """Segmentation at the input's resolution, without the auxiliary heads of training.

    `width` is the detail branch's first (the semantic branch starts at a quarter of it). `pooled_size` is the
    (height, width) of the input for the form without ReduceMean; None gives the paper's form.
    """

    def __init__(
        self,
        num_classes: int = 19,
        width: int = 64,
        head: int = 1024,
        pooled_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        narrow = width // 4
        self.detail = nn.Sequential(
            conv_bn_relu(3, width, 3, 2),
            conv_bn_relu(width, width, 3),
            conv_bn_relu(width, width, 3, 2),
            conv_bn_relu(width, width, 3),
            conv_bn_relu(width, width, 3),
            conv_bn_relu(width, 2 * width, 3, 2),
            conv_bn_relu(2 * width, 2 * width, 3),
            conv_bn_relu(2 * width, 2 * width, 3),
        )
        context: ContextEmbedding = ContextEmbedding(2 * width)
        if pooled_size is not None:
            context = PooledContextEmbedding(2 * width, (pooled_size[0] // 32, pooled_size[1] // 32))
        self.semantic = nn.Sequential(
            Stem(narrow),
            GatherExpansionDown(narrow, 2 * narrow),
            GatherExpansion(2 * narrow),
            GatherExpansionDown(2 * narrow, width),
            GatherExpansion(width),
            GatherExpansionDown(width, 2 * width),
            GatherExpansion(2 * width),
            GatherExpansion(2 * width),
            GatherExpansion(2 * width),
            context,
        )
        self.aggregate = GuidedAggregation(2 * width)
        self.head = nn.Sequential(
            conv_bn_relu(2 * width, head, 3), nn.Dropout(0.1), nn.Conv2d(head, num_classes, 1), upsample(8)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.aggregate(self.detail(x), self.semantic(x)))
