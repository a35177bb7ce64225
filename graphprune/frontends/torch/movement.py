"""Data movement: axes are split, merged, exchanged, joined, cut, repeated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch

from graphprune.frontends.torch.conversion import Conversion, Size, hint
from graphprune.frontends.torch.registry import operator


def reshape_to(
    c: Conversion, x: ir.Value, shape: Sequence[int | torch.SymInt], what: str = "size"
) -> ir.Value:
    """Reshape; one size may follow the batch, or several that keep their place."""
    dynamic = [i for i, d in enumerate(shape) if not isinstance(d, int)]
    old = c.fake(x).shape
    target = [d if isinstance(d, int) else -1 for d in shape]
    for i in dynamic[1:] if dynamic else []:
        if i >= len(old) or str(old[i]) != str(shape[i]):
            raise c.refuse("two of its sizes depend on the batch size")
        target[i] = 0
    return c.emit("Reshape", x, c.ints(target, what))


@operator(
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_copy", "reshape_as", "view_as", "ravel"
)
def view(c: Conversion, x: ir.Value, **_: object) -> ir.Value:
    """Reshape to the traced output's sizes."""
    return reshape_to(c, x, c.out.shape)


@operator("squeeze", "squeeze_", "squeeze_copy")
def squeeze(c: Conversion, x: ir.Value, dim: int | list[int] | None = None) -> ir.Value:
    """Axes of size 1 go."""
    dims = range(c.rank(x)) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = sorted({c.axis(x, d) for d in dims if c.shape(x)[d] == 1})
    return c.emit("Squeeze", x, c.ints(axes, "axes")) if axes else c.emit("Identity", x)


@operator("unsqueeze", "unsqueeze_", "unsqueeze_copy")
def unsqueeze(c: Conversion, x: ir.Value, dim: int) -> ir.Value:
    """A new axis of size 1."""
    return c.emit("Unsqueeze", x, c.ints([dim % (c.rank(x) + 1)], "axes"))


@operator("permute", "permute_copy")
def permute(c: Conversion, x: ir.Value, dims: list[int]) -> ir.Value:
    """Axes in another order."""
    return c.emit("Transpose", x, perm=[c.axis(x, d) for d in dims])


@operator("transpose", "transpose_", "swapaxes", "transpose_copy")
def transpose(
    c: Conversion, x: ir.Value, dim0: int = 0, dim1: int = 0, axis0: int = 0, axis1: int = 0
) -> ir.Value:
    """Two axes exchanged."""
    a, b = c.axis(x, dim0 or axis0), c.axis(x, dim1 or axis1)
    perm = list(range(c.rank(x)))
    perm[a], perm[b] = perm[b], perm[a]
    return c.emit("Transpose", x, perm=perm)


@operator("t", "numpy_T", "mT", "adjoint", "matrix_H")
def t(c: Conversion, x: ir.Value) -> ir.Value:
    """The last two axes exchanged."""
    rank = c.rank(x)
    if rank < 2:
        return x
    return c.emit("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


@operator("movedim")
def movedim(c: Conversion, x: ir.Value, source: int | list[int], destination: int | list[int]) -> ir.Value:
    """Axes moved to other places."""
    sources = [c.axis(x, s) for s in ([source] if isinstance(source, int) else source)]
    targets = [c.axis(x, d) for d in ([destination] if isinstance(destination, int) else destination)]
    rest = iter([a for a in range(c.rank(x)) if a not in sources])
    placed = dict(zip(targets, sources, strict=True))
    return c.emit("Transpose", x, perm=[placed[a] if a in placed else next(rest) for a in range(c.rank(x))])


@operator("expand", "expand_copy")
def expand(c: Conversion, x: ir.Value, size: list[Size], implicit: bool = False) -> ir.Value:
    """Axes of size 1 repeated; -1 keeps a size."""
    new = len(size) - c.rank(x)
    old = [1] * new + c.shape(x)
    target: list[Size] = [
        1 if s == -1 or (not isinstance(s, int) and old[i] != 1) else s for i, s in enumerate(size)
    ]
    return c.emit("Expand", x, c.sizes(target, "size"))


@operator("expand_as")
def expand_as(c: Conversion, x: ir.Value, other: ir.Value) -> ir.Value:
    """Repeated to the sizes of another tensor."""
    return c.emit("Expand", x, c.emit("Shape", other))


@operator("repeat", "tile")
def repeat(
    c: Conversion, x: ir.Value, repeats: list[Size] | None = None, dims: list[Size] | None = None
) -> ir.Value:
    """The tensor several times along every axis."""
    counts = list(repeats if repeats is not None else dims or [])
    rank = c.rank(x)
    if len(counts) > rank:
        x = c.emit("Unsqueeze", x, c.ints(range(len(counts) - rank), "axes"))
    return c.emit("Tile", x, c.sizes([*[1] * (rank - len(counts)), *counts], "repeats"))


@operator("repeat_interleave")
def repeat_interleave(
    c: Conversion, x: ir.Value, repeats: int | ir.Value, dim: int | None = None, **_: object
) -> ir.Value:
    """Every position several times in a row."""
    if not isinstance(repeats, int) or dim is None:
        raise c.refuse("its counts must be one number, along one axis")
    axis = c.axis(x, dim)
    tall = c.emit("Unsqueeze", x, c.ints([axis + 1], "axes"))
    counts = [1] * (c.rank(x) + 1)
    counts[axis + 1] = repeats
    wide = c.emit("Tile", tall, c.ints(counts, "repeats"))
    return c.emit("Reshape", wide, c.ints(_one_symbol(c.out.shape), "size"))


def _one_symbol(shape: Sequence[int | torch.SymInt]) -> list[int]:
    return [d if isinstance(d, int) else -1 for d in shape]


@operator("cat", "concat", "concatenate")
def cat(c: Conversion, tensors: list[ir.Value], dim: int = 0) -> ir.Value:
    """Tensors joined along an axis."""
    used = [t for t in tensors if c.shape(t) != [0]]
    return c.emit("Concat", *(c.cast(t, c.out.dtype) for t in used), axis=c.axis(used[0], dim))


@operator("stack")
def stack(c: Conversion, tensors: list[ir.Value], dim: int = 0) -> ir.Value:
    """Tensors joined along a new axis."""
    axis = dim % c.out.ndim
    axes = c.ints([axis], "axes")
    return c.emit("Concat", *(c.emit("Unsqueeze", t, axes) for t in tensors), axis=axis)


@operator("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk", "split_copy")
def split(c: Conversion, x: ir.Value, dim: int = 0, **_: object) -> list[ir.Value]:
    """Cut along an axis into the traced sizes."""
    axis = c.axis(x, dim)
    parts = c.current.meta["val"]
    sizes = [p.shape[axis] for p in parts]
    if not all(isinstance(s, int) for s in sizes):
        raise c.refuse("it splits the batch")
    return c.emit_many("Split", [x, c.ints([hint(s) for s in sizes], "sizes")], len(sizes), axis=axis)


@operator("unbind", "unbind_copy")
def unbind(c: Conversion, x: ir.Value, dim: int = 0) -> list[ir.Value]:
    """One tensor per position of an axis."""
    axis = c.axis(x, dim)
    count = c.static(x, axis)
    return [c.emit("Gather", x, c.constant(np.int64(i), f"index{i}"), axis=axis) for i in range(count)]


@operator("roll")
def roll(c: Conversion, x: ir.Value, shifts: list[int], dims: list[int]) -> ir.Value:
    """Positions shifted around."""
    if not dims:
        raise c.refuse("it rolls over all axes at once")
    for number, (shift, dim) in enumerate(zip(shifts, dims, strict=True)):
        axis = dim % c.out.ndim
        by = shift % hint(c.out.shape[axis])
        axes = c.ints([axis], f"axis{number}")
        cut = [
            c.emit("Slice", x, c.ints([a], f"start{number}"), c.ints([b], f"end{number}"), axes)
            for a, b in ((-by, 1 << 62), (0, -by))
            if by
        ]
        x = c.emit("Concat", *cut, axis=axis) if cut else x
    return x if x.producer() is not None else c.emit("Identity", x)


@operator("flip")
def flip(c: Conversion, x: ir.Value, dims: list[int]) -> ir.Value:
    """Positions in reverse order."""
    axes = [c.axis(x, d) for d in dims]
    count = len(axes)
    return c.emit(
        "Slice", x, c.ints([-1] * count, "start"), c.ints([-(1 << 62)] * count, "end"), c.ints(axes, "axes"),
        c.ints([-1] * count, "step"),
    )  # fmt: skip


@operator(
    "constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad2d", "replication_pad1d"
)
def pad(
    c: Conversion, x: ir.Value, pad: list[int] | None = None, padding: list[int] | None = None,
    mode: str = "constant", value: float | None = None,
) -> ir.Value:  # fmt: skip
    """Positions added at the ends of the last axes."""
    amounts = list(pad if pad is not None else padding or [])
    name = str(c.current.target)
    if "reflection" in name or mode == "reflect":
        kind = "reflect"
    elif "replication" in name or mode == "replicate":
        kind = "edge"
    else:
        kind = {"constant": "constant", "circular": "wrap"}[mode]
    count, rank = len(amounts) // 2, c.rank(x)
    axes = [rank - 1 - i for i in range(count)]
    pads = c.ints([*amounts[0::2], *amounts[1::2]], "pad")
    filler = c.number(value or 0, c.out.dtype) if kind == "constant" else None
    return c.emit("Pad", x, pads, filler, c.ints(axes, "axes"), mode=kind)


@operator("pixel_shuffle")
def pixel_shuffle(c: Conversion, x: ir.Value, upscale_factor: int) -> ir.Value:
    """Channels to space."""
    return c.emit("DepthToSpace", x, blocksize=upscale_factor, mode="CRD")


@operator("pixel_unshuffle")
def pixel_unshuffle(c: Conversion, x: ir.Value, downscale_factor: int) -> ir.Value:
    """Space to channels, the channel outermost."""
    r = downscale_factor
    _, channels, height, width = c.shape(x)
    tall = c.ints([-1, channels, height // r, r, width // r, r], "blocks")
    moved = c.emit("Transpose", c.emit("Reshape", x, tall), perm=[0, 1, 3, 5, 2, 4])
    return c.emit("Reshape", moved, c.ints([-1, channels * r * r, height // r, width // r], "size"))


@operator("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(c: Conversion, x: ir.Value, groups: int) -> ir.Value:
    """Groups of channels interleaved."""
    shape = c.shape(x)
    rest = shape[2:]
    tall = c.emit("Reshape", x, c.ints([-1, groups, shape[1] // groups, *rest], "groups"))
    moved = c.emit("Transpose", tall, perm=[0, 2, 1, *range(3, len(shape) + 1)])
    return c.emit("Reshape", moved, c.ints([-1, *shape[1:]], "size"))
