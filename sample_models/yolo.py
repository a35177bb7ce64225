"""YOLOv5-style detector with ReLU: focus, C3 stages, SPPF, path-aggregation neck, three detection scales."""

import torch
from torch import Tensor, nn

from sample_models.layers import conv_bn_relu

STRIDES = (8, 16, 32)
ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)  # width, height in pixels: three for each stride


class Focus(nn.Module):
    """Space to depth by four strided slices, then a convolution."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(12, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        corners = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return self.conv(torch.cat(corners, 1))


class Residual(nn.Module):
    """1x1, 3x3; added to the input if `add`."""

    def __init__(self, channels: int, add: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn_relu(channels, channels, 1), conv_bn_relu(channels, channels, 3))
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage partial block: half of the width through residuals, half past them, fused by a 1x1."""

    def __init__(self, in_channels: int, out_channels: int, depth: int, add: bool = True) -> None:
        super().__init__()
        half = out_channels // 2
        self.deep = nn.Sequential(
            conv_bn_relu(in_channels, half, 1), *(Residual(half, add) for _ in range(depth))
        )
        self.past = conv_bn_relu(in_channels, half, 1)
        self.fuse = conv_bn_relu(2 * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat((self.deep(x), self.past(x)), 1))


class SPPF(nn.Module):
    """Three chained 5x5 max pools, concatenated with their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.fuse = conv_bn_relu(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        once = self.pool(x)
        twice = self.pool(once)
        return self.fuse(torch.cat((x, once, twice, self.pool(twice)), 1))


class Detect(nn.Module):
    """A 1x1 convolution per scale; boxes decoded to pixels, or the raw maps `[n, 3 (5 + classes), h, w]`."""

    def __init__(self, num_classes: int, widths: tuple[int, ...], image_size: int, decode: bool) -> None:
        super().__init__()
        self.outputs = 5 + num_classes
        self.decode = decode
        self.convs = nn.ModuleList(nn.Conv2d(width, 3 * self.outputs, 1) for width in widths)
        for stride, anchors in zip(STRIDES, ANCHORS, strict=True):
            steps = torch.arange(image_size // stride, dtype=torch.float32)
            rows, cols = torch.meshgrid(steps, steps, indexing="ij")
            self.register_buffer(f"grid_{stride}", torch.stack((cols, rows), -1)[None, None])
            self.register_buffer(
                f"anchors_{stride}", torch.tensor(anchors, dtype=torch.float32).view(1, 3, 1, 1, 2)
            )

    def boxes(self, raw: Tensor, stride: int) -> Tensor:
        """Rows of x, y, w, h in pixels, objectness and class scores: `[n, 3 h w, 5 + classes]`."""
        batch, _, height, width = raw.shape
        y = raw.view(batch, 3, self.outputs, height, width).permute(0, 1, 3, 4, 2).sigmoid()
        centre = (y[..., 0:2] * 2 - 0.5 + self.get_buffer(f"grid_{stride}")) * stride
        size = (y[..., 2:4] * 2) ** 2 * self.get_buffer(f"anchors_{stride}")
        return torch.cat((centre, size, y[..., 4:]), -1).reshape(batch, 3 * height * width, self.outputs)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        raw = tuple(conv(x) for conv, x in zip(self.convs, features, strict=True))
        if not self.decode:
            return raw
        return torch.cat([self.boxes(x, stride) for x, stride in zip(raw, STRIDES, strict=True)], 1)


class YOLOv5(nn.Module):
    """`width`: channels of the first layer; `depth`: residuals of the first stage. Defaults: YOLOv5s."""

    def __init__(
        self,
        num_classes: int = 80,
        width: int = 32,
        depth: int = 1,
        image_size: int = 640,
        decode: bool = True,
    ) -> None:
        super().__init__()
        w2, w4, w8, w16 = 2 * width, 4 * width, 8 * width, 16 * width
        self.stage3 = nn.Sequential(
            Focus(width),
            conv_bn_relu(width, w2, 3, 2),
            C3(w2, w2, depth),
            conv_bn_relu(w2, w4, 3, 2),
            C3(w4, w4, 2 * depth),
        )
        self.stage4 = nn.Sequential(conv_bn_relu(w4, w8, 3, 2), C3(w8, w8, 3 * depth))
        self.stage5 = nn.Sequential(conv_bn_relu(w8, w16, 3, 2), C3(w16, w16, depth), SPPF(w16))
        self.enlarge = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.lateral5 = conv_bn_relu(w16, w8, 1)
        self.top4 = C3(w16, w8, depth, add=False)
        self.lateral4 = conv_bn_relu(w8, w4, 1)
        self.top3 = C3(w8, w4, depth, add=False)
        self.down3 = conv_bn_relu(w4, w4, 3, 2)
        self.bottom4 = C3(w8, w8, depth, add=False)
        self.down4 = conv_bn_relu(w8, w8, 3, 2)
        self.bottom5 = C3(w16, w16, depth, add=False)
        self.detect = Detect(num_classes, (w4, w8, w16), image_size, decode)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        c3 = self.stage3(x)
        c4 = self.stage4(c3)
        side5 = self.lateral5(self.stage5(c4))
        side4 = self.lateral4(self.top4(torch.cat((self.enlarge(side5), c4), 1)))
        p3 = self.top3(torch.cat((self.enlarge(side4), c3), 1))
        p4 = self.bottom4(torch.cat((self.down3(p3), side4), 1))
        p5 = self.bottom5(torch.cat((self.down4(p4), side5), 1))
        return self.detect((p3, p4, p5))
