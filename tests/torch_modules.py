"""Small PyTorch modules, each with something that pruners of modules are known to get wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A module, the sizes of its inputs, and options of ``prune``."""

    make: Callable[[], nn.Module]
    inputs: tuple[Sizes, ...]
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def case(*inputs: Sizes, **options: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """List a module under its class name."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        CASES[cls.__name__] = Case(cls, inputs, options)
        return cls

    return register


def conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    """3 x 3, sizes of the image kept."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Head(nn.Module):
    """Mean over the image, then five classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


# -- convolutional networks ---------------------------------------------------------------------------


@case((2, 3, 16, 16))
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = conv(3, 16, bias=False), nn.BatchNorm2d(16)
        self.c1, self.b1 = conv(16, 16, bias=False), nn.BatchNorm2d(16)
        self.c2, self.b2 = conv(16, 16, bias=False), nn.BatchNorm2d(16)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.b2(self.c2(F.relu(self.b1(self.c1(x))))))
        return self.fc(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


@case((2, 3, 16, 16))
class MobileWithSqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand, self.be = nn.Conv2d(3, 24, 1), nn.BatchNorm2d(24)
        self.depth, self.bd = conv(24, 24, groups=24), nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project, self.bp, self.fc = nn.Conv2d(24, 16, 1), nn.BatchNorm2d(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bd(self.depth(F.hardswish(self.be(self.expand(x))))))
        gate = self.excite(F.silu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.fc(self.bp(self.project(x * F.hardsigmoid(gate))).mean([2, 3]))


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channels of the groups interleaved."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width).transpose(1, 2).contiguous()
    return x.view(batch, -1, height, width)


@case((2, 3, 8, 8))
class ShuffleBetweenGroups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.g = conv(3, 16), nn.Conv2d(16, 16, 1, groups=4)
        self.h, self.o = conv(16, 16, groups=2), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.h(shuffled(self.g(self.a(x).relu()), 4)).relu())


@case((2, 3, 8, 8))
class ShuffleAfterChunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 16), conv(8, 8), conv(8, 8), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        for layer in (self.b, self.c):
            kept, worked = x.chunk(2, 1)
            x = shuffled(torch.cat([kept, layer(worked).relu()], 1), 2)
        return self.head(x)


@case((2, 3, 8, 8))
class ShuffleOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 16, groups=4), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.channel_shuffle(self.b(self.a(x)), 4).relu())


@case((2, 3, 8, 8))
class StridedChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 16), conv(8, 8), conv(8, 8), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.head(torch.cat([self.b(x[:, ::2]), self.c(x[:, 1::2])], 1))


@case((2, 3, 8, 8))
class C2f(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Conv2d(3, 32, 1), nn.Conv2d(64, 8, 1)
        self.m = nn.ModuleList([conv(16, 16), conv(16, 16)])

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.a(x).chunk(2, 1))
        parts.extend(m(parts[-1]) for m in self.m)
        return self.o(torch.cat(parts, 1))


@case((2, 3, 8, 8))
class SplitAndPad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 20), conv(6, 6), conv(14, 6), Head(20)

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.a(x).relu().split([6, 14], 1)
        return self.head(F.pad(self.b(p) + self.c(q), (0, 0, 0, 0, 0, 14)) + torch.cat([p, q], 1))


@case((2, 3, 8, 8))
class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = conv(3, 16), conv(16, 32), conv(8, 12), conv(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(F.pixel_shuffle(self.b(self.a(x).relu()), 2)).sigmoid())


@case((2, 3, 8, 8))
class PixelUnshuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.d = conv(3, 8), conv(32, 12), conv(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(F.pixel_unshuffle(self.a(x).relu(), 2)).relu())


@case((2, 3, 8, 8))
class Glu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 32), conv(16, 24), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.glu(self.b(F.glu(self.a(x), 1)), 1))


@case((2, 3, 8, 8))
class GroupCounts(nn.Module):
    """Convolutions of 2, 3 and 24 groups on one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = conv(3, 24), Head(24)
        self.b, self.c, self.d = conv(24, 24, groups=2), conv(24, 24, groups=3), conv(24, 24, groups=24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.head(self.b(x) + self.c(x).relu() * self.d(x))


@case((2, 3, 8, 8))
class ActivationShapedBuffers(nn.Module):
    scale: Tensor
    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 12), Head(12)
        self.register_buffer("scale", torch.rand(1, 16, 1, 1))
        self.register_buffer("grid", torch.rand(12, 8, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x) * self.scale).relu() + self.grid)


@case((2, 3, 8, 8))
class SigmoidGates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.g, self.b, self.head = conv(3, 16), conv(3, 16), conv(16, 8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.b(self.a(x) * torch.sigmoid(self.g(x)))))


@case((2, 3, 8, 8))
class ConcatenatedWithItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(16, 8), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        y = self.b(torch.cat([x, x], 1))
        return self.head(torch.cat([y, -y], 1).relu())


@case((2, 3, 8, 8))
class SharedLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.n, self.head = conv(3, 16), conv(16, 16), nn.BatchNorm2d(16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.n(self.b(self.n(self.b(self.a(x))).relu())))


@case((2, 9, 9))
class SharedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.f = nn.Linear(9, 16, bias=False), nn.Linear(9, 16, bias=False)
        self.f.weight = self.e.weight
        self.m, self.d = nn.Linear(16, 16), nn.Linear(16, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.m(self.e(x) + self.f(x.flip(1))).relu())


@case((2, 3, 8, 8))
class GroupAndInstanceNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = conv(3, 16), nn.GroupNorm(4, 16), conv(16, 12)
        self.m, self.head = nn.InstanceNorm2d(12, affine=True), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.m(self.b(self.n(self.a(x)).relu())).relu())


@case((2, 3, 8, 8))
class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.up = conv(3, 16), conv(16, 24), nn.ConvTranspose2d(24, 16, 2, 2)
        self.c, self.p, self.o = conv(32, 8), nn.PReLU(8), conv(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        b = self.b(F.max_pool2d(a, 2)).relu()
        y = self.p(self.c(torch.cat([self.up(b), a], 1)))
        return self.o(torch.cat([y, F.interpolate(b, scale_factor=2, mode="bilinear")], 1))


@case((2, 3, 8, 8))
class ChangedInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        F.relu(x, inplace=True)  # what it returns is not used
        y = self.b(x)
        y += x
        y.clamp_(0, 6)
        return self.head(y)


@case((2, 3, 8, 8))
class FlattenedImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.l, self.b, self.o = conv(3, 16), nn.Linear(256, 20), nn.BatchNorm1d(20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.b(self.l(F.avg_pool2d(self.a(x).relu(), 2).view(x.size(0), -1))))


@case((2, 3, 9, 9))
class UnevenPools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = conv(3, 16), conv(16, 8), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.a(x), 3, 2, 1, ceil_mode=True)
        return self.fc(F.adaptive_avg_pool2d(self.b(x), 2).flatten(1))


@case((2, 3, 8, 8))
class SelectedChannels(nn.Module):
    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(1, 8), Head(8)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 7, 6, 5, 4]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        return self.head(self.b(x[:, 2].unsqueeze(1)) * x[:, self.order])


# -- attention ----------------------------------------------------------------------------------------


class Block(nn.Module):
    """A transformer block with one projection to queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.p = nn.Linear(32, 96), nn.Linear(32, 32)
        self.m1, self.m2 = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        packed = self.qkv(self.n1(x)).reshape(batch, tokens, 3, 4, width // 4)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.p(y)
        return x + self.m2(F.gelu(self.m1(self.n2(x))))


@case((2, 3, 8, 8))
class VisionTransformer(nn.Module):
    """Class token and position embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.block = nn.Conv2d(3, 32, 2, 2), Block()
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 17, 32))
        self.norm, self.fc = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.fc(self.norm(self.block(x))[:, 0])


CASES["VisionTransformerWidth"] = Case(VisionTransformer, ((2, 3, 8, 8),), {"attention": "width"})
CASES["VisionTransformerInexact"] = Case(VisionTransformer, ((2, 3, 8, 8),), {"allow_inexact": True})


@case((2, 7, 8))
class MultiHeadAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.i, self.a = nn.Linear(8, 32), nn.MultiheadAttention(32, 4, batch_first=True)
        self.o = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x)
        return self.o(self.a(x, x, x, need_weights=False)[0])


@case((2, 7, 24))
class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True, norm_first=True)
        self.e, self.o = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.e(x))


@case((2, 7, 12))
class EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, 24) for _ in range(3))
        self.w = nn.Parameter(torch.randn(4, 6, 12) / 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = (layer(x).view(batch, tokens, 4, 6) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bihd,bjhd->bhij", q, k).mul(6**-0.5).softmax(-1)
        return torch.einsum("bihd,hdo->bio", torch.einsum("bhij,bjhd->bihd", scores, v), self.w)


@case((2, 7, 12), (2, 7, 12))
class BakedHeads(nn.Module):
    """Head counts and widths as numbers in reshapes, heads merged into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = 8
        self.q, self.k, self.v, self.o = (nn.Linear(*n) for n in ((12, 32), (12, 32), (12, 32), (32, 12)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        batch = x.shape[0]

        def heads(t: Tensor) -> Tensor:
            return t.reshape(batch, 7, 4, 8).transpose(1, 2).reshape(batch * 4, 7, 8)

        q, k, v = heads(self.q(x)), heads(self.k(y)), heads(self.v(y))
        scores = torch.bmm(q, k.transpose(1, 2)) / self.head_dim**0.5
        out = torch.bmm(scores.softmax(-1), v).view(batch, 4, 7, 8)
        return self.o(out.transpose(1, 2).contiguous().view(batch, 7, 32))


class WindowAttention(nn.Module):
    """Attention within windows of 4 x 4 with a table of relative position biases."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(24, 72), nn.Linear(24, 24)
        self.table = nn.Parameter(torch.randn(49, 3))
        grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        apart = (grid[:, :, None] - grid[:, None]).permute(1, 2, 0) + 3
        self.register_buffer("index", apart[..., 0] * 7 + apart[..., 1])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        windows, tokens, width = x.shape
        packed = self.qkv(x).reshape(windows, tokens, 3, 3, width // 3).permute(2, 0, 3, 1, 4)
        q, k, v = packed.unbind(0)
        bias = self.table[self.index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1).contiguous()
        scores = (q * (width // 3) ** -0.5) @ k.transpose(-2, -1) + bias.unsqueeze(0)
        if mask is not None:
            count = mask.shape[0]
            scores = scores.view(windows // count, count, 3, tokens, tokens) + mask.unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, 3, tokens, tokens)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(windows, tokens, width))


@case((2, 3, 16, 16))
class Swin(nn.Module):
    """Plain and shifted windows, then a merge of patches."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.p, self.n1, self.n2 = nn.Conv2d(3, 24, 2, 2), nn.LayerNorm(24), nn.LayerNorm(24)
        self.a, self.b = WindowAttention(), WindowAttention()
        self.f1, self.f2 = nn.Linear(24, 48), nn.Linear(48, 24)
        self.nr, self.red, self.fc = nn.LayerNorm(96), nn.Linear(96, 48, bias=False), nn.Linear(48, 5)
        mask = torch.zeros(4, 16, 16)
        mask[1, :8, 8:] = -100
        self.register_buffer("mask", mask)

    def windowed(self, x: Tensor, attention: nn.Module, mask: Tensor | None = None) -> Tensor:
        batch, height, width, channels = x.shape
        w = x.view(batch, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5).contiguous()
        w = attention(w.view(-1, 16, channels), mask)
        w = w.view(batch, height // 4, width // 4, 4, 4, -1).permute(0, 1, 3, 2, 4, 5).contiguous()
        return w.view(batch, height, width, -1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.p(x).permute(0, 2, 3, 1)
        x = x + self.windowed(self.n1(x), self.a)
        y = torch.roll(self.n2(x), (-2, -2), (1, 2))
        x = x + torch.roll(self.windowed(y, self.b, self.mask), (2, 2), (1, 2))
        x = x + self.f2(F.gelu(self.f1(x)))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.fc(self.red(self.nr(x)).mean((1, 2)))


class Grouped(nn.Module):
    """Six query heads share two key heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(*n) for n in ((24, 48), (24, 16), (24, 16), (48, 24)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = (layer(x).view(batch, tokens, -1, 8).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.o(self.attend(q, k, v).transpose(1, 2).reshape(batch, tokens, -1))


@case((2, 7, 24))
class GroupedQueries(Grouped):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=True)


@case((2, 7, 24))
class GroupedQueriesExpanded(Grouped):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, _, tokens, width = q.shape
        k, v = (t[:, :, None].expand(batch, 2, 3, tokens, width).reshape(q.shape) for t in (k, v))
        return F.scaled_dot_product_attention(q, k, v)


@case((2, 7, 24))
class GroupedQueriesRepeated(Grouped):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1))


# -- recurrent ----------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """An LSTM, GRU or RNN and a linear layer."""

    def __init__(self, layer: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.l = layer(8, 16, batch_first=True, **options)
        self.o = nn.Linear(32 if options.get("bidirectional") else 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.l(x)[0])


_DEEP = {"num_layers": 2, "bidirectional": True, "dropout": 0.1}
CASES["Lstm"] = Case(lambda: Recurrent(nn.LSTM), ((2, 6, 8),))
CASES["LstmDeep"] = Case(lambda: Recurrent(nn.LSTM, **_DEEP), ((2, 6, 8),))
CASES["Gru"] = Case(lambda: Recurrent(nn.GRU, bias=False), ((2, 6, 8),))
CASES["GruDeep"] = Case(lambda: Recurrent(nn.GRU, **_DEEP), ((2, 6, 8),))
CASES["Rnn"] = Case(lambda: Recurrent(nn.RNN, bidirectional=True), ((2, 6, 8),))


# -- what real architectures brought up ------------------------------------------------------------------


class StandardisedWeight(nn.Module):
    """NFNet's convolution: batch_norm in training mode, always, on the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.h = conv(3, 16), conv(16, 12), Head(12)
        self.gain = nn.Parameter(torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.a.weight.reshape(1, 16, -1), None, None, self.gain, training=True)
        x = F.conv2d(x, weight.reshape_as(self.a.weight), self.a.bias, padding=1)
        return self.h(self.b(x.relu()).relu())


@case((2, 3, 8, 8))
class ActivationInPlaceAfterDepthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.h = conv(3, 16), conv(16, 16, groups=16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(F.hardswish(self.b(F.relu(self.a(x), inplace=True)), inplace=True))


@case((2, 3, 8, 8))
class FrozenNormalisation(nn.Module):
    """Scale and shift computed from buffers, each by several operators, one from the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.h = conv(3, 16), conv(16, 12), Head(12)
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight * (self.var + 1e-5).rsqrt()).reshape(1, -1, 1, 1)
        shift = self.bias.reshape(1, -1, 1, 1) - self.mean.reshape(1, -1, 1, 1) * scale
        return self.h(self.b((self.a(x) * scale + shift).relu()).relu())


@case((2, 7, 16))
class MaskedBias(nn.Module):
    """A trained bias per head, masked where it looks ahead (T5, and Swin's shifted windows)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.randn(13, 4))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        q, k, v = self.qkv(x).view(batch, 7, 3, 4, 4).permute(2, 0, 3, 1, 4)
        apart = torch.arange(7)[:, None] - torch.arange(7) + 6
        bias = self.table[apart].permute(2, 0, 1).unsqueeze(0).expand(batch, -1, -1, -1)
        bias = torch.where(apart[None, None] >= 6, bias, -100.0)
        scores = (q @ k.transpose(-2, -1) / 2 + bias).softmax(-1)
        return self.o((scores @ v).transpose(1, 2).reshape(batch, 7, 16))


@case((2, 7, 16))
class LearnedQueries(nn.Module):
    """Attention whose queries are parameters, one set for every sample (DETR, attention pooling)."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 5, 16))
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]

        def heads(t: Tensor) -> Tensor:
            return t.view(t.shape[0], t.shape[1], 4, 4).transpose(1, 2)

        queries = self.q(self.queries.repeat(batch, 1, 1))
        y = F.scaled_dot_product_attention(heads(queries), heads(self.k(x)), heads(self.v(x)))
        return self.o(y.transpose(1, 2).reshape(batch, 5, 16))


@case((2, 3, 8, 8))
class WritesIntoParts(nn.Module):
    """``y[..., :2] += z`` and an assignment to one position (boxes of detectors)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.h = conv(3, 16), conv(16, 4), Head(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).relu())
        y[..., :2] += x[:, :1, :, 6:]
        y[:, :, 0] = y[:, :, 1].sigmoid()
        return self.h(y.relu())


@case((2, 9, 12))
class CausalMaskOfIndices(nn.Module):
    """A mask computed from positions of samples and tokens by indexing, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        position = torch.arange(tokens)[None].expand(batch, -1)
        segment = (position.diff(dim=-1, prepend=position[:, :1] - 1) != 1).cumsum(-1)
        sample, row, column = (
            torch.arange(batch)[:, None, None],
            torch.arange(tokens)[:, None],
            torch.arange(tokens),
        )
        mask = (segment[sample, row] == segment[sample, column]) & (column <= row)
        q, k, v = (f(x).view(batch, tokens, 3, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
        return self.o(y.transpose(1, 2).reshape(batch, tokens, 12))


@case((2, 3, 8, 8))
class Unfolded(nn.Module):
    """Windows by Tensor.unfold and by F.unfold."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.h = conv(3, 12), conv(3, 8), Head(12)
        self.fc = nn.Linear(8 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        windows = self.a(x).relu().unfold(2, 3, 2).unfold(3, 3, 2).amax((-2, -1))
        columns = F.unfold(self.b(x).relu(), 3, padding=1, stride=2)
        return self.h(windows) + self.fc(columns.mean(2))


@case((2, 9, 16))
class BiasOfAPerceptron(nn.Module):
    """A bias per head that a small network computes from positions, with an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(2, 64), nn.ReLU(inplace=True), nn.Linear(64, 4))
        self.register_buffer("positions", torch.randn(81, 2))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        q, k, v = self.qkv(x).view(batch, 9, 3, 4, 4).permute(2, 0, 3, 1, 4)
        bias = self.mlp(self.positions).view(9, 9, 4).permute(2, 0, 1)
        scores = (q @ k.transpose(-2, -1) / 2 + bias).softmax(-1)
        return self.o((scores @ v).transpose(1, 2).reshape(batch, 9, 16))
