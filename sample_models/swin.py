"""Swin Transformer: attention in (shifted) windows, a table of relative position biases, patch merging."""

import torch
from torch import Tensor, nn


def relative_index(window: int) -> Tensor:
    """For each pair of positions in a window, the row of the bias table: `[window^2, window^2]`."""
    steps = torch.arange(window)
    rows, cols = (axis.flatten() for axis in torch.meshgrid(steps, steps, indexing="ij"))
    shifted_rows = rows[:, None] - rows[None, :] + window - 1
    shifted_cols = cols[:, None] - cols[None, :] + window - 1
    return shifted_rows * (2 * window - 1) + shifted_cols


def to_windows(x: Tensor, window: int) -> Tensor:
    """`n (h p) (w q) c -> (n h w) (p q) c` with p = q = window."""
    batch, height, width, dim = x.shape
    x = x.view(batch, height // window, window, width // window, window, dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, dim)


def from_windows(x: Tensor, window: int, size: int) -> Tensor:
    """The inverse of `to_windows` for a square map."""
    count, dim = size // window, x.shape[-1]
    x = x.view(-1, count, count, window, window, dim).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, size, size, dim)


def shift_mask(size: int, window: int, shift: int) -> Tensor:
    """-100 between positions of a rolled window that were not neighbours: `[windows, window^2, window^2]`."""
    region = torch.zeros(size)
    region[-window:-shift] = 1
    region[-shift:] = 2
    regions = (region[:, None] * 3 + region[None, :]).view(1, size, size, 1)
    flat = to_windows(regions, window).squeeze(-1)
    return torch.where(flat[:, :, None] == flat[:, None, :], 0.0, -100.0)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows; `mask` (shifted windows only) is added per window."""

    def __init__(self, dim: int, heads: int, window: int, mask: Tensor | None) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.2)
        self.register_buffer("bias_index", relative_index(window).flatten())
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        scores = query * self.head_dim**-0.5 @ key.transpose(-2, -1)
        bias = self.bias_table[self.get_buffer("bias_index")].view(tokens, tokens, self.heads)
        scores = scores + bias.permute(2, 0, 1)
        if self.mask is not None:
            mask = self.get_buffer("mask")
            scores = scores.view(-1, mask.shape[0], self.heads, tokens, tokens) + mask[:, None]
            scores = scores.view(-1, self.heads, tokens, tokens)
        return self.out((torch.softmax(scores, -1) @ value).transpose(1, 2).reshape(count, tokens, dim))


class SwinBlock(nn.Module):
    """LayerNorm, windowed attention on the rolled map, add; LayerNorm, two linear layers, add."""

    def __init__(self, dim: int, heads: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.size, self.window, self.shift = size, window, shift
        self.norm1 = nn.LayerNorm(dim)
        mask = shift_mask(size, window, shift) if shift else None
        self.attention = WindowAttention(dim, heads, window, mask)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = from_windows(self.attention(to_windows(y, self.window)), self.window, self.size)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Each 2x2 neighbourhood to one position of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = (x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2])
        return self.reduce(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
    """The defaults give Swin-T. A stage whose map is no larger than a window does not shift."""

    def __init__(
        self,
        num_classes: int = 1000,
        dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (3, 6, 12, 24),
        window: int = 7,
        patch: int = 4,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.norm_patches = nn.LayerNorm(dim)
        stages: list[nn.Module] = []
        size = image_size // patch
        for stage, (depth, stage_heads) in enumerate(zip(depths, heads, strict=True)):
            if stage > 0:
                stages.append(PatchMerging(dim))
                dim, size = 2 * dim, size // 2
            for index in range(depth):
                shift = window // 2 if index % 2 and size > window else 0
                stages.append(SwinBlock(dim, stage_heads, size, window, shift))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_patches(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm(self.stages(x)).mean((1, 2)))
