"""Arguments that hold channel counts: how each ATen operator's get the numbers of the pruned model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import fx

from graphprune.errors import ConversionError
from graphprune.frontends.torch.arguments import bound, set_argument

Shape = tuple[int, ...]


class Sizes(Protocol):
    """What a writer may ask about the model before and after."""

    def shapes(self, node: fx.Node) -> tuple[Shape, Shape]:
        """Sizes of a node's value in the original and in the pruned model."""

    def parts(self, node: fx.Node) -> tuple[list[Shape], list[Shape]]:
        """The same for a node that returns several."""

    def constants(self, node: fx.Node, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A constant input of the ONNX node that makes the value, in the original and in the pruned model."""

    def inner(self, node: fx.Node, what: str, index: int) -> np.ndarray:
        """A constant input of the pruned ONNX node ``node.what``."""

    def attribute(self, node: fx.Node, name: str) -> int:
        """An integer attribute of the ONNX node that makes the value, in the pruned model."""

    def scaled(self, size: fx.Node, new: int, old: int) -> fx.Node:
        """A size that follows the batch, corrected for what pruning changed."""

    def tensor(self, node: fx.Node, data: np.ndarray, what: str, instead: fx.Node | None = None) -> fx.Node:
        """A new buffer, or new data in one that only ``node`` reads."""


Writer = Callable[[Sizes, fx.Node], None]
_WRITERS: dict[str, Writer] = {}


def writer(*names: str) -> Callable[[Writer], Writer]:
    """Register how the literals of ATen operators (by packet name) are written."""

    def register(function: Writer) -> Writer:
        _WRITERS.update(dict.fromkeys(names, function))
        return function

    return register


def find_writer(name: str) -> Writer | None:
    """The writer of an operator, or None where no argument of it can change."""
    return _WRITERS.get(name)


def _sizes(s: Sizes, given: Sequence[Any], old: Sequence[int], new: Sequence[int]) -> list[Any]:
    """Literal sizes get the new numbers; -1 stays; what follows the batch is corrected."""
    found: list[Any] = []
    for size, before, after in zip(given, old, new, strict=True):
        if isinstance(size, fx.Node):
            found.append(size if before == after else s.scaled(size, after, before))
        else:
            found.append(size if size == -1 or before == after else after)
    return found


@writer("view", "reshape", "_unsafe_view", "view_copy", "expand", "expand_copy")
@writer("zeros", "ones", "empty", "full", "new_zeros", "new_ones", "new_empty", "new_full")
def size(s: Sizes, n: fx.Node) -> None:
    """One size per axis of the result."""
    old, new = s.shapes(n)
    a = bound(n)
    name = "size" if "size" in a else "shape"
    if len(a[name]) == len(old):
        set_argument(n, name, _sizes(s, a[name], old, new))


@writer("reshape_as", "view_as")
def reshape_as(s: Sizes, n: fx.Node) -> None:
    """The sizes themselves, because the other tensor may not have lost the same positions."""
    old, new = s.shapes(n)
    if old != new and all(isinstance(d, int) for d in n.meta["val"].shape):
        n.target, n.args, n.kwargs = torch.ops.aten.reshape.default, (bound(n)["x"], list(new)), {}


@writer("unflatten")
def unflatten(s: Sizes, n: fx.Node) -> None:
    """Sizes of the axes that one becomes."""
    old, new = s.shapes(n)
    a = bound(n)
    count = len(a["sizes"])
    axis = a["dim"] % (len(old) - count + 1)
    span = slice(axis, axis + count)
    set_argument(n, "sizes", _sizes(s, a["sizes"], old[span], new[span]))


@writer("repeat", "tile")
def repeat(s: Sizes, n: fx.Node) -> None:
    """How often each axis is repeated."""
    a = bound(n)
    name = "repeats" if "repeats" in a else "dims"
    _, new = s.shapes(n)
    _, before = s.shapes(a["x"])
    counts = a[name]
    old_sizes = (1,) * (len(new) - len(before)) + before
    ratios = [x // y for x, y in zip(new, old_sizes, strict=True)][-len(counts) :]
    set_argument(n, name, [c if isinstance(c, fx.Node) else r for c, r in zip(counts, ratios, strict=True)])


@writer("repeat_interleave")
def repeat_interleave(s: Sizes, n: fx.Node) -> None:
    """How often each position is repeated."""
    a = bound(n)
    (_, new), (_, before) = s.shapes(n), s.shapes(a["x"])
    axis = a["dim"] % len(new)
    set_argument(n, "repeats", new[axis] // before[axis])


@writer("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
def split(s: Sizes, n: fx.Node) -> None:
    """Sizes of the parts; unequal ones need the operator that takes a list."""
    old, new = s.parts(n)
    a = bound(n)
    axis = a.get("dim", 0) % len(old[0])
    sizes = [p[axis] for p in new]
    if sizes == [p[axis] for p in old]:
        return
    n.target = torch.ops.aten.split_with_sizes.default
    n.args, n.kwargs = (a["x"], sizes, axis), {}


@writer("slice", "slice_copy")
def slice_(s: Sizes, n: fx.Node) -> None:
    """Start and end."""
    for index, name in ((1, "start"), (2, "end")):
        old, new = s.constants(n, index)
        if not np.array_equal(old, new):
            set_argument(n, name, int(new.reshape(-1)[0]))


@writer("narrow")
def narrow(s: Sizes, n: fx.Node) -> None:
    """Start and length."""
    _, start = s.constants(n, 1)
    _, end = s.constants(n, 2)
    first, last = int(start.reshape(-1)[0]), int(end.reshape(-1)[0])
    set_argument(n, "start", first)
    set_argument(n, "length", last - first)


@writer("select", "select_copy")
def select(s: Sizes, n: fx.Node) -> None:
    """The position."""
    old, new = s.constants(n, 1)
    if not np.array_equal(old, new):
        set_argument(n, "index", int(new.reshape(-1)[0]))


@writer("slice_scatter", "select_scatter")
def scatter(s: Sizes, n: fx.Node) -> None:
    """No position of the axis may have gone. Raises ConversionError."""
    a = bound(n)
    (old, new), axis = s.shapes(n), a["dim"]
    if old[axis] != new[axis]:
        raise ConversionError(
            f"node {n.name!r} replaces positions of an axis that was pruned: exclude its channels, or prune the "
            "ONNX export"
        )


@writer("index", "_unsafe_index", "index_select")
def index(s: Sizes, n: fx.Node) -> None:
    """Positions that a constant tensor names."""
    old, new = s.constants(n, 1)
    if np.array_equal(old, new):
        return
    a = bound(n)
    given = a["index"] if "index" in a else next(i for i in a["indices"] if i is not None)
    positions = s.tensor(n, new, "index", instead=given)
    if "index" in a:
        set_argument(n, "index", positions)
    else:
        set_argument(n, "indices", [None if i is None else positions for i in a["indices"]])


@writer("constant_pad_nd", "pad")
def pad(s: Sizes, n: fx.Node) -> None:
    """Amounts at both ends, the last axis first."""
    old, new = s.constants(n, 1)
    if not np.array_equal(old, new):
        before, after = np.split(new, 2)
        set_argument(n, "pad", [int(v) for pair in zip(before, after, strict=True) for v in pair])


@writer(
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution"
)
def conv(s: Sizes, n: fx.Node) -> None:
    """The number of groups of a depthwise convolution."""
    groups = s.attribute(n, "group")
    if groups != bound(n)["groups"]:
        set_argument(n, "groups", groups)


@writer("group_norm")
def group_norm(s: Sizes, n: fx.Node) -> None:
    """The number of groups."""
    set_argument(n, "num_groups", s.attribute(n, "num_groups"))


@writer("layer_norm", "rms_norm")
def layer_norm(s: Sizes, n: fx.Node) -> None:
    """Sizes of the normalised axes."""
    _, new = s.shapes(n)
    set_argument(n, "normalized_shape", list(new[-len(bound(n)["normalized_shape"]) :]))


@writer("scaled_dot_product_attention")
def attention(s: Sizes, n: fx.Node) -> None:
    """The scale stays what it was when the heads get narrower."""
    a = bound(n)
    old, new = s.shapes(a["query"])
    if a["scale"] is None and old[-1] != new[-1]:
        set_argument(n, "scale", 1 / math.sqrt(old[-1]))


@writer("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(s: Sizes, n: fx.Node) -> None:
    """The number of groups."""
    set_argument(n, "groups", int(s.inner(n, "Reshape", 1)[1]))
