"""Random ONNX networks with random weights, for property tests.

A network is a :class:`Recipe`: a few settings and a list of (block, seed) pairs. Every block reads the
builder's current tensor and replaces it. What a block does depends on its own seed and its input's
shape only, so hypothesis shrinks a failure by dropping blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

OPSETS = (11, 13, 17, 18, 21)
WIDTHS = (4, 6, 8, 12, 16)
IR_VERSIONS = {11: 6, 13: 7, 17: 8, 18: 8, 21: 10}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a network. ``batch`` None is a dynamic axis."""

    blocks: tuple[tuple[str, int], ...]
    seed: int = 0
    opset: int = 17
    batch: int | None = None


@dataclass(frozen=True)
class Tensor:
    """A value and its sizes after the batch axis: C H W (image), T D (tokens) or C (vector)."""

    name: str
    dims: tuple[int, ...]


Block = Callable[["Builder", Tensor], Tensor]
IMAGE: dict[str, Block] = {}
TOKENS: dict[str, Block] = {}
VECTOR: dict[str, Block] = {}
RARE_IMAGE: dict[str, Block] = {}
RARE_TOKENS: dict[str, Block] = {}
"""See tests.rare_blocks."""


def block(table: dict[str, Block]) -> Callable[[Block], Block]:
    """Register a block under its function's name."""

    def register(function: Block) -> Block:
        table[function.__name__] = function
        return function

    return register


class Builder:
    """Appends nodes; every choice comes from ``rng``."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.opset = recipe.opset
        self.rng = np.random.default_rng(recipe.seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.shared: dict[tuple[int, ...], str] = {}
        self.saved: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.count = 0

    # -- choices --------------------------------------------------------------------------------

    def pick(self, options: Sequence):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    # -- nodes ----------------------------------------------------------------------------------

    def name(self, hint: str) -> str:
        self.count += 1
        return f"{hint}_{self.count}"

    def op(self, kind: str, *inputs: str, n: int = 1, domain: str = "", **attrs):
        """Append a node; returns the output's name, or ``n`` of them."""
        outs = [self.name(kind.lower()) for _ in range(n)]
        self.nodes.append(
            helper.make_node(kind, inputs, outs, name=self.name("node"), domain=domain, **attrs)
        )
        return outs[0] if n == 1 else outs

    def tensor(self, array: np.ndarray, hint: str = "w") -> str:
        name = self.name(hint)
        self.tensors.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector, as an initializer or a Constant node."""
        array = np.array(values, np.int64)
        if self.chance(0.5):
            return self.tensor(array, "i")
        return self.op("Constant", value=numpy_helper.from_array(array))

    def scalar(self, value: float) -> str:
        return self.tensor(np.array(value, np.float32), "s")

    def random(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def weight(self, *shape: int, fan: int = 1, share: bool = True) -> str:
        """A random weight, stored in one of the ways that exporters use."""
        if share and shape in self.shared and self.chance(0.1):
            return self.shared[shape]
        array = self.random(*shape, scale=1.2 / math.sqrt(max(fan, 1)))
        how = self.pick(
            ["plain"] * 8 + ["constant", "identity", "transposed", "unsqueezed", "reshaped", "quantised"]
        )
        name = self._stored(array, how)
        self.shared[shape] = name
        return name

    def _stored(self, array: np.ndarray, how: str) -> str:
        if how == "constant":
            return self.op("Constant", value=numpy_helper.from_array(array))
        if how == "identity":
            return self.op("Identity", self.tensor(array))
        if how == "transposed":
            perm = self.rng.permutation(array.ndim)
            return self.op("Transpose", self.tensor(array.transpose(np.argsort(perm))), perm=perm.tolist())
        if how == "unsqueezed" and array.ndim > 1 and array.shape[-1] == 1:
            return self.unsqueeze(self.tensor(array[..., 0]), array.ndim - 1)
        if how == "reshaped":
            flat = self.tensor(array.reshape(array.shape[0], -1))
            return self.op("Reshape", flat, self.ints(*array.shape))
        if how == "quantised" and self.opset >= 13 and array.ndim > 1:
            return self.dequantised(array)
        return self.tensor(array)

    def dequantised(self, array: np.ndarray) -> str:
        """int8 weight with a DequantizeLinear, per tensor or per channel of axis 0."""
        per_channel = self.chance(0.5)
        peak = np.abs(array).reshape(array.shape[0], -1).max(1) if per_channel else np.abs(array).max()
        scale = np.asarray(peak / 127 + 1e-6, np.float32)
        wide = scale.reshape(-1, *[1] * (array.ndim - 1)) if per_channel else scale
        stored = np.clip(np.rint(array / wide), -127, 127).astype(np.int8)
        zero = np.zeros(scale.shape, np.int8)
        names = [self.tensor(stored, "q"), self.tensor(scale, "scale"), self.tensor(zero, "zero")]
        return self.op("DequantizeLinear", *names, **({"axis": 0} if per_channel else {}))

    # -- operators whose form depends on the opset ----------------------------------------------

    def unsqueeze(self, x: str, *axes: int) -> str:
        if self.opset < 13:
            return self.op("Unsqueeze", x, axes=list(axes))
        return self.op("Unsqueeze", x, self.ints(*axes))

    def squeeze(self, x: str, *axes: int) -> str:
        if self.opset < 13:
            return self.op("Squeeze", x, axes=list(axes))
        return self.op("Squeeze", x, self.ints(*axes))

    def reduce(self, kind: str, x: str, axes: Sequence[int], keepdims: int = 1) -> str:
        if self.opset >= 18 or (kind == "ReduceSum" and self.opset >= 13):
            return self.op(kind, x, self.ints(*axes), keepdims=keepdims)
        return self.op(kind, x, axes=list(axes), keepdims=keepdims)

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        n = len(sizes)
        if self.opset < 13:
            equal = len(set(sizes)) == 1 and self.chance(0.5)
            return self.op("Split", x, n=n, axis=axis, **({} if equal else {"split": list(sizes)}))
        if len(set(sizes)) == 1 and self.chance(0.5):
            return self.op("Split", x, n=n, axis=axis, **({"num_outputs": n} if self.opset >= 18 else {}))
        return self.op("Split", x, self.ints(*sizes), n=n, axis=axis)

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        return self.op("Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))

    # -- shapes -----------------------------------------------------------------------------------

    def reshape(self, x: str, *dims: int, literal: bool = False) -> str:
        """To ``[batch, *dims]``: a literal target, or one computed from Shape as tracers export it."""
        style = "literal" if literal else self.pick(["literal", "literal", "shape"])
        if style == "shape":
            return self.op("Reshape", x, self.op("Concat", self.batch_of(x), self.ints(*dims), axis=0))
        first = 0 if self.recipe.batch is None or self.chance(0.5) else self.recipe.batch
        target = [first, *dims]
        if self.chance(0.4):
            target[int(self.rng.integers(len(target)))] = -1
        return self.op("Reshape", x, self.ints(*target))

    def size_of(self, x: str, axis: int) -> str:
        """One size of ``x`` as a vector of one."""
        shape = self.op("Shape", x)
        if self.chance(0.5):
            return self.slice(shape, axis, axis + 1, 0)
        return self.unsqueeze(self.op("Gather", shape, self.tensor(np.array(axis, np.int64), "i"), axis=0), 0)

    def batch_of(self, x: str) -> str:
        return self.size_of(x, 0)

    # -- layouts ----------------------------------------------------------------------------------

    def image(self, x: Tensor) -> Tensor:
        if len(x.dims) == 3:
            return x
        if len(x.dims) == 1:
            return Tensor(self.unsqueeze(x.name, 2, 3), (x.dims[0], 1, 1))
        tokens, width = x.dims
        height = next(h for h in range(math.isqrt(tokens), 0, -1) if tokens % h == 0)
        y = self.op("Transpose", x.name, perm=[0, 2, 1])
        return Tensor(self.reshape(y, width, height, tokens // height), (width, height, tokens // height))

    def tokens(self, x: Tensor) -> Tensor:
        if len(x.dims) == 2:
            return x
        if len(x.dims) == 1:
            return Tensor(self.unsqueeze(x.name, 1), (1, *x.dims))
        c, h, w = x.dims
        if self.chance(0.5):
            y = self.op("Transpose", self.reshape(x.name, c, h * w), perm=[0, 2, 1])
        else:
            y = self.reshape(self.op("Transpose", x.name, perm=[0, 2, 3, 1]), h * w, c)
        return Tensor(y, (h * w, c))

    def vector(self, x: Tensor) -> Tensor:
        if len(x.dims) == 1:
            return x
        if len(x.dims) == 2:
            how = self.pick(["mean", "first", "flatten"])
            if how == "mean":
                return Tensor(self.reduce("ReduceMean", x.name, [1], keepdims=0), x.dims[1:])
            if how == "first":
                index = self.tensor(np.array(self.pick([0, -1]), np.int64), "i")
                return Tensor(self.op("Gather", x.name, index, axis=1), x.dims[1:])
            return Tensor(self.op("Flatten", x.name), (math.prod(x.dims),))
        c, h, w = x.dims
        how = self.pick(["gap", "mean", "flatten", "reshape"])
        if how == "gap":
            return Tensor(self.op("Flatten", self.op("GlobalAveragePool", x.name)), (c,))
        if how == "mean":
            return Tensor(self.reduce("ReduceMean", x.name, [2, 3], keepdims=0), (c,))
        if how == "flatten":
            return Tensor(self.op("Flatten", x.name, axis=1), (c * h * w,))
        return Tensor(self.reshape(x.name, c * h * w), (c * h * w,))

    # -- pieces that blocks share -------------------------------------------------------------------

    def conv(self, x: Tensor, out: int, k: int = 1, stride: int = 1, group: int = 1) -> Tensor:
        c, h, w = x.dims
        inputs = [x.name, self.weight(out, c // group, k, k, fan=c // group * k * k)]
        if self.chance(0.6):
            inputs.append(self.weight(out))
        y = self.op(
            "Conv", *inputs, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[stride] * 2, group=group
        )
        return Tensor(y, (out, (h - 1) // stride + 1, (w - 1) // stride + 1))

    def linear(self, x: Tensor, out: int) -> Tensor:
        """MatMul on the last axis, with or without a bias."""
        width = x.dims[-1]
        y = self.op("MatMul", x.name, self.weight(width, out, fan=width))
        if self.chance(0.6):
            pair = [y, self.weight(out)]
            y = self.op("Add", *(pair if self.chance(0.5) else pair[::-1]))
        return Tensor(y, (*x.dims[:-1], out))

    def activate(self, x: Tensor) -> Tensor:
        kinds = [
            "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", "Selu", "Clip", "PRelu",
            "swish", "gelu", "Neg", "Abs", "Exp", "Identity", "Cast", "Dropout", "hardswish", "Softsign",
        ]  # fmt: skip
        if self.opset >= 14:
            kinds.append("HardSwish")
        if self.opset >= 18:
            kinds.append("Mish")
        if self.opset >= 20:
            kinds.append("Gelu")
        return Tensor(self._activation(x, self.pick(kinds)), x.dims)

    def _activation(self, x: Tensor, kind: str) -> str:
        if kind == "Clip":
            return self.op("Clip", x.name, self.scalar(-0.5), self.scalar(6.0))
        if kind == "PRelu":
            return self.op("PRelu", x.name, self.per_channel(x))
        if kind == "swish":
            return self.op("Mul", x.name, self.op("Sigmoid", x.name))
        if kind == "hardswish":
            inner = self.op("Clip", self.op("Add", x.name, self.scalar(3)), self.scalar(0), self.scalar(6))
            return self.op("Mul", x.name, self.op("Div", inner, self.scalar(6)))
        if kind == "gelu":
            inner = self.op("Erf", self.op("Div", x.name, self.scalar(math.sqrt(2))))
            y = self.op("Mul", x.name, self.op("Add", inner, self.scalar(1)))
            return self.op("Mul", y, self.scalar(0.5))
        if kind == "Exp":
            return self.op("Exp", self.op("Clip", x.name, self.scalar(-2), self.scalar(2)))
        if kind == "Cast":
            return self.op("Cast", self.op("Cast", x.name, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)
        return self.op(kind, x.name)

    def per_channel(self, x: Tensor) -> str:
        """A constant that broadcasts over ``x``: per channel in one of its spellings, or one number."""
        if len(x.dims) == 3:
            c, h, w = x.dims
            shape = self.pick([(c, 1, 1), (1, c, 1, 1), (1,), (c, h, w), (1, 1, h, w), (c, 1, w)])
        else:
            shape = self.pick([(x.dims[-1],), (1, x.dims[-1]), (1,), (1, *x.dims)])
        return self.weight(*shape)

    def same(self, x: Tensor) -> Tensor:
        """Another tensor of the shape of ``x``: computed from it, or an older one."""
        older = [t for t in self.saved if t.dims == x.dims and t.name != x.name]
        if older and self.chance(0.5):
            return self.pick(older)
        if len(x.dims) == 3:
            return self.conv(x, x.dims[0], self.pick([1, 3]))
        return self.linear(x, x.dims[-1])

    def combine(self, a: str, b: str) -> str:
        kind = self.pick(["Add"] * 5 + ["Mul", "Sub", "Max", "Min", "Sum", "Mean", "Where", "Div", "Pow"])
        if kind == "Where":
            # continuous where the two are equal, or rounding would decide
            return self.op("Where", self.op("Greater", a, b), a, b)
        if kind == "Div":
            return self.op("Div", a, self.op("Add", self.op("Abs", b), self.scalar(1)))
        if kind == "Pow":
            return self.op("Pow", self.op("Add", self.op("Sigmoid", a), self.scalar(0.5)), self.op("Tanh", b))
        return self.op(kind, a, b)


def _groups(b: Builder, *sizes: int) -> int:
    return b.pick([g for g in (1, 2, 4) if all(s % g == 0 for s in sizes)])


# -- blocks on images: N C H W ------------------------------------------------------------------------


@block(IMAGE)
def conv(b: Builder, x: Tensor) -> Tensor:
    out = b.pick(WIDTHS)
    stride = 2 if min(x.dims[1:]) >= 6 and b.chance(0.3) else 1
    return b.conv(x, out, b.pick([1, 3]), stride, _groups(b, x.dims[0], out) if b.chance(0.5) else 1)


@block(IMAGE)
def conv_activation(b: Builder, x: Tensor) -> Tensor:
    return b.activate(batch_norm(b, b.conv(x, b.pick(WIDTHS), 3)))


@block(IMAGE)
def grouped(b: Builder, x: Tensor) -> Tensor:
    c = x.dims[0]
    group = b.pick([g for g in (2, 4) if c % g == 0] or [1])
    return b.conv(x, c * b.pick([1, 2]) if c <= 8 else c, b.pick([1, 3]), 1, group)


@block(IMAGE)
def depthwise(b: Builder, x: Tensor) -> Tensor:
    return b.conv(x, x.dims[0] * b.pick([1, 2] if x.dims[0] <= 8 else [1]), 3, 1, x.dims[0])


@block(IMAGE)
def conv_transpose(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    if max(h, w) > 4:
        return conv(b, x)
    group = b.pick([g for g in (1, 1, 2, 4, c) if c % g == 0])
    each = b.pick([1, 2]) if group == c else b.pick([2, 4])
    inputs = [x.name, b.weight(c, each, 2, 2, fan=c // group * 2)]
    if b.chance(0.5):
        inputs.append(b.weight(each * group))
    y = b.op("ConvTranspose", *inputs, kernel_shape=[2, 2], strides=[2, 2], group=group)
    return Tensor(y, (each * group, 2 * h, 2 * w))


@block(IMAGE)
def batch_norm(b: Builder, x: Tensor) -> Tensor:
    c = x.dims[0]
    stats = [b.random(c), b.random(c), b.random(c), np.abs(b.random(c)) + 0.5]
    return Tensor(b.op("BatchNormalization", x.name, *(b.tensor(s, "bn") for s in stats)), x.dims)


@block(IMAGE)
def activation(b: Builder, x: Tensor) -> Tensor:
    return b.activate(x)


@block(IMAGE)
def residual(b: Builder, x: Tensor) -> Tensor:
    y = b.activate(b.conv(x, x.dims[0], b.pick([1, 3])))
    y = b.conv(y, x.dims[0], 1)
    return b.activate(Tensor(b.combine(x.name, y.name), x.dims))


@block(IMAGE)
def skip(b: Builder, x: Tensor) -> Tensor:
    return Tensor(b.combine(x.name, b.same(x).name), x.dims)


@block(IMAGE)
def dense_concat(b: Builder, x: Tensor) -> Tensor:
    parts = [x, b.conv(x, b.pick([4, 8]), 3)]
    if b.chance(0.5):
        parts.append(b.pick(parts))
    if sum(p.dims[0] for p in parts) > 32:
        parts = parts[1:]
    order = b.rng.permutation(len(parts))
    y = b.op("Concat", *(parts[i].name for i in order), axis=b.pick([1, -3]))
    return Tensor(y, (sum(p.dims[0] for p in parts), *x.dims[1:]))


@block(IMAGE)
def csp_split(b: Builder, x: Tensor) -> Tensor:
    c = x.dims[0]
    if c < 2:
        return conv(b, x)
    first = int(b.rng.integers(1, c))
    sizes = [c // 2, c - c // 2] if b.chance(0.5) else [first, c - first]
    parts = [Tensor(p, (s, *x.dims[1:])) for p, s in zip(b.split(x.name, sizes, 1), sizes, strict=True)]
    parts[0] = b.activate(b.conv(parts[0], sizes[0], b.pick([1, 3])))
    if b.chance(0.2):
        return parts[1]
    order = b.pick([[0, 1], [1, 0]])
    return Tensor(b.op("Concat", *(parts[i].name for i in order), axis=1), x.dims)


@block(IMAGE)
def channel_slice(b: Builder, x: Tensor) -> Tensor:
    c = x.dims[0]
    if c < 2:
        return conv(b, x)
    if b.chance(0.5):
        start = int(b.rng.integers(0, c // 2))
        y = b.slice(x.name, start, b.pick([c, 2**31, start + c // 2]), 1)
        size = min(c, c - start)
        used = nodes_end(b, start, c)
        return Tensor(y, (size if used is None else used, *x.dims[1:]))
    step, start = b.pick([(2, 0), (2, 1), (3, 0), (-1, -1), (-2, -1)])
    end = c if step > 0 else -c - 1
    size = len(range(c)[slice(start, None, step)])
    return Tensor(b.slice(x.name, start, end, 1, step), (size, *x.dims[1:]))


def nodes_end(b: Builder, start: int, size: int) -> int | None:
    """Length that the Slice just appended takes (its end is a stored literal)."""
    name = b.nodes[-1].input[2]
    stored = [t for t in b.tensors if t.name == name]
    stored += [n.attribute[0].t for n in b.nodes if n.op_type == "Constant" and n.output[0] == name]
    return len(range(size)[start : int(numpy_helper.to_array(stored[0])[0])])


@block(IMAGE)
def chunked(b: Builder, x: Tensor) -> Tensor:
    """Both halves by Slice, combined."""
    c = x.dims[0]
    if c % 2:
        return x
    left, right = b.slice(x.name, 0, c // 2, 1), b.slice(x.name, c // 2, c, 1)
    return Tensor(b.combine(left, b.op("Sigmoid", right)), (c // 2, *x.dims[1:]))


@block(IMAGE)
def channel_gather(b: Builder, x: Tensor) -> Tensor:
    c = x.dims[0]
    index = b.pick([b.rng.permutation(c), b.rng.integers(-c, c, max(c // 2, 2)), np.arange(0, c, 2)])
    name = b.tensor(np.asarray(index, np.int64), "i")
    return Tensor(b.op("Gather", x.name, name, axis=1), (len(index), *x.dims[1:]))


@block(IMAGE)
def shuffle(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    g = b.pick([g for g in (2, 3, 4) if c % g == 0] or [1])
    y = b.op("Transpose", b.reshape(x.name, g, c // g, h, w), perm=[0, 2, 1, 3, 4])
    return Tensor(b.reshape(y, c, h, w), x.dims)


@block(IMAGE)
def shuffle_unit(b: Builder, x: Tensor) -> Tensor:
    return grouped(b, shuffle(b, b.activate(grouped(b, x))))


@block(IMAGE)
def squeeze_excite(b: Builder, x: Tensor) -> Tensor:
    c = x.dims[0]
    pooled = b.op("GlobalAveragePool", x.name) if b.chance(0.5) else b.reduce("ReduceMean", x.name, [2, 3])
    if b.chance(0.5):
        y = b.conv(b.activate(b.conv(Tensor(pooled, (c, 1, 1)), 4)), c).name
    else:
        y = b.linear(b.activate(b.linear(Tensor(b.reshape(pooled, c), (c,)), 4)), c).name
        y = b.unsqueeze(y, 2, 3) if b.chance(0.5) else b.reshape(y, c, 1, 1)
    return Tensor(b.op("Mul", x.name, b.op(b.pick(["Sigmoid", "HardSigmoid"]), y)), x.dims)


@block(IMAGE)
def space_to_depth(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    if h % 2 or w % 2 or c > 6:
        return conv(b, x)
    return Tensor(b.op("SpaceToDepth", x.name, blocksize=2), (4 * c, h // 2, w // 2))


@block(IMAGE)
def depth_to_space(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    if max(h, w) > 4:
        return conv(b, x)
    y = b.conv(x, 4 * b.pick([2, 4])) if c % 4 else x
    mode = b.pick(["DCR", "CRD"])
    return Tensor(b.op("DepthToSpace", y.name, blocksize=2, mode=mode), (y.dims[0] // 4, 2 * h, 2 * w))


@block(IMAGE)
def focus(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    if h % 2 or w % 2 or c > 8:
        return conv(b, x)
    parts = [b.slice(b.slice(x.name, i, h, 2, 2), j, 2**31, 3, 2) for j in (0, 1) for i in (0, 1)]
    return Tensor(b.op("Concat", *parts, axis=1), (4 * c, h // 2, w // 2))


@block(IMAGE)
def pool(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    kind = b.pick(["MaxPool", "AveragePool"])
    if min(h, w) < 4 or b.chance(0.5):
        return Tensor(b.op(kind, x.name, kernel_shape=[3, 3], pads=[1] * 4), x.dims)
    return Tensor(b.op(kind, x.name, kernel_shape=[2, 2], strides=[2, 2]), (c, h // 2, w // 2))


@block(IMAGE)
def resize(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    new = (2 * h, 2 * w) if max(h, w) <= 4 else (max(h // 2, 1), max(w // 2, 1))
    mode = b.pick(["nearest", "linear"])
    if b.chance(0.5):
        scales = np.array([1, 1, new[0] / h, new[1] / w], np.float32)
        y = b.op("Resize", x.name, b.tensor(np.zeros(0, np.float32)), b.tensor(scales), mode=mode)
    else:
        empty = b.tensor(np.zeros(0, np.float32))
        if b.recipe.batch is not None and b.chance(0.5):
            sizes = b.ints(b.recipe.batch, c, *new)
        else:
            sizes = b.op("Concat", b.slice(b.op("Shape", x.name), 0, 2, 0), b.ints(*new), axis=0)
        y = b.op("Resize", x.name, empty, empty if b.opset < 13 else "", sizes, mode=mode)
    return Tensor(y, (c, *new))


@block(IMAGE)
def pad_shortcut(b: Builder, x: Tensor) -> Tensor:
    """ResNet's option A: the shortcut is padded with zero channels."""
    c, h, w = x.dims
    if c > 12:
        return conv(b, x)
    more = b.pick([2, 4])
    before = b.pick([0, more // 2])
    pads = [0, before, 0, 0, 0, more - before, 0, 0]
    inputs = [x.name, b.ints(*pads)] + ([b.scalar(0.5)] if b.chance(0.3) else [])
    return Tensor(b.op("Add", b.op("Pad", *inputs), b.conv(x, c + more, 3).name), (c + more, h, w))


@block(IMAGE)
def pad_space(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    if h < 2 or w < 2 or max(h, w) > 8:
        return x
    mode = b.pick(["constant", "reflect", "edge"])
    return Tensor(b.op("Pad", x.name, b.ints(0, 0, 1, 0, 0, 0, 1, 1), mode=mode), (c, h + 2, w + 1))


@block(IMAGE)
def crop(b: Builder, x: Tensor) -> Tensor:
    c, h, w = x.dims
    if h < 3 or w < 3:
        return x
    ends = [b.ints(1, 0), b.ints(h, -1), b.ints(2, 3)]
    return Tensor(b.op("Slice", x.name, *ends), (c, h - 1, w - 1))


@block(IMAGE)
def instance_norm(b: Builder, x: Tensor) -> Tensor:
    c = x.dims[0]
    y = b.op("InstanceNormalization", x.name, b.weight(c), b.weight(c), epsilon=1e-2)
    return Tensor(y, x.dims)


@block(IMAGE)
def group_norm(b: Builder, x: Tensor) -> Tensor:
    """As tracers export it: InstanceNormalization on [N, groups, -1], then scale and shift."""
    c, h, w = x.dims
    g = _groups(b, c)
    if b.opset >= 21 and b.chance(0.4):
        params = [b.weight(c), b.weight(c)]
        return Tensor(b.op("GroupNormalization", x.name, *params, num_groups=g, epsilon=1e-2), x.dims)
    ones = [b.tensor(np.ones(g, np.float32)), b.tensor(np.zeros(g, np.float32))]
    flat = b.op("Reshape", x.name, b.ints(0, g, -1))
    y = b.op("InstanceNormalization", flat, *ones, epsilon=1e-2)
    back = b.op("Reshape", y, b.op("Shape", x.name)) if b.chance(0.5) else b.reshape(y, c, h, w)
    y = b.op("Mul", back, b.weight(c, 1, 1))
    return Tensor(b.op("Add", y, b.weight(1, c, 1, 1)), x.dims)


@block(IMAGE)
def lrn(b: Builder, x: Tensor) -> Tensor:
    return Tensor(b.op("LRN", x.name, size=3, bias=1.0, alpha=0.1), x.dims)


@block(IMAGE)
def spatial_gate(b: Builder, x: Tensor) -> Tensor:
    """CBAM: statistics over the channels make a map that gates them."""
    parts = [b.reduce(kind, x.name, [1]) for kind in ("ReduceMax", "ReduceMean")]
    y = b.conv(Tensor(b.op("Concat", *parts, axis=1), (2, *x.dims[1:])), 1, 3)
    return Tensor(b.op("Mul", x.name, b.op("Sigmoid", y.name)), x.dims)


@block(IMAGE)
def channel_softmax(b: Builder, x: Tensor) -> Tensor:
    y = b.conv(x, b.pick([4, 6]))
    return Tensor(b.op("Softmax", y.name, axis=1), y.dims) if b.opset >= 13 else y


@block(IMAGE)
def global_context(b: Builder, x: Tensor) -> Tensor:
    """Pooled features grown back by Expand or Tile, beside the map."""
    c, h, w = x.dims
    if c > 12:
        return conv(b, x)
    y = b.conv(Tensor(b.op("GlobalAveragePool", x.name), (c, 1, 1)), 4)
    if b.chance(0.4):
        grown = b.op("Tile", y.name, b.ints(1, 1, h, w))
    elif b.chance(0.5):
        grown = b.op("Expand", y.name, b.ints(1, *b.pick([(4,), (1,)]), h, w))
    else:
        size = b.op("Concat", b.batch_of(x.name), b.ints(4, h, w), axis=0)
        grown = b.op("Expand", y.name, size)
    return Tensor(b.op("Concat", x.name, grown, axis=1), (c + 4, h, w))


@block(IMAGE)
def grown_channels(b: Builder, x: Tensor) -> Tensor:
    """One channel expanded or tiled to many, then combined with many."""
    c, h, w = x.dims
    y = b.conv(x, 1).name
    grown = b.op("Tile", y, b.ints(1, c, 1, 1)) if b.chance(0.5) else b.op("Expand", y, b.ints(1, c, h, w))
    return Tensor(b.combine(x.name, grown), x.dims)


@block(IMAGE)
def tiled_channels(b: Builder, x: Tensor) -> Tensor:
    if x.dims[0] > 8:
        return conv(b, x)
    return Tensor(b.op("Tile", x.name, b.ints(1, 2, 1, 1)), (2 * x.dims[0], *x.dims[1:]))


@block(IMAGE)
def scale(b: Builder, x: Tensor) -> Tensor:
    pair = [x.name, b.per_channel(x)]
    return Tensor(b.combine(*(pair if b.chance(0.7) else pair[::-1])), x.dims)


@block(IMAGE)
def channels_last(b: Builder, x: Tensor) -> Tensor:
    """ConvNeXt: MatMul on the last axis between two Transposes."""
    c, h, w = x.dims
    y = Tensor(b.op("Transpose", x.name, perm=[0, 2, 3, 1]), (h, w, c))
    if b.chance(0.4):
        y = layer_norm(b, y)
    y = b.linear(b.activate(b.linear(y, b.pick(WIDTHS))), c)
    y = Tensor(b.op("Transpose", y.name, perm=[0, 3, 1, 2]), x.dims)
    return Tensor(b.op("Add", x.name, y.name), x.dims) if b.chance(0.5) else y


@block(IMAGE)
def einsum(b: Builder, x: Tensor) -> Tensor:
    if b.opset < 12:
        return conv(b, x)
    out = b.pick(WIDTHS)
    y = b.op("Einsum", x.name, b.weight(out, x.dims[0], fan=x.dims[0]), equation="nchw,oc->nohw")
    return Tensor(y, (out, *x.dims[1:]))


@block(IMAGE)
def non_local(b: Builder, x: Tensor) -> Tensor:
    """Attention over positions with one head: two activations contract over channels."""
    c, h, w = x.dims
    inner = b.pick([4, 6])
    q, k, v = (b.reshape(b.conv(x, inner).name, inner, h * w) for _ in range(3))
    scores = b.op("MatMul", b.op("Transpose", q, perm=[0, 2, 1]), k)
    y = b.op("MatMul", v, b.op("Transpose", softmax(b, scores, 3), perm=[0, 2, 1]))
    return Tensor(
        b.op("Add", x.name, b.conv(Tensor(b.reshape(y, inner, h, w), (inner, h, w)), c).name), x.dims
    )


@block(IMAGE)
def channel_attention(b: Builder, x: Tensor) -> Tensor:
    """XCiT: a softmax over channels, and channels on both axes of a product."""
    c, h, w = x.dims
    flat = b.reshape(x.name, c, h * w)
    scores = b.op(
        "Div", b.op("MatMul", flat, b.op("Transpose", flat, perm=[0, 2, 1])), b.scalar(float(h * w))
    )
    y = b.op("MatMul", softmax(b, scores, 3), flat)
    return Tensor(b.reshape(y, c, h, w), x.dims)


@block(IMAGE)
def bilinear(b: Builder, x: Tensor) -> Tensor:
    """Products over positions of two channel axes, flattened: labels on two axes at once."""
    _, h, w = x.dims
    left, right = b.conv(x, 4), b.conv(x, 3)
    a = b.reshape(left.name, 4, h * w)
    y = b.op("MatMul", a, b.op("Transpose", b.reshape(right.name, 3, h * w), perm=[0, 2, 1]))
    return Tensor(b.op("Flatten", b.op("Div", y, b.scalar(float(h * w)))), (12,))


@block(IMAGE)
def weighted_sum(b: Builder, x: Tensor) -> Tensor:
    """Selective kernels: branches stacked on a new axis, weighted and summed."""
    parts = [b.unsqueeze(b.conv(x, x.dims[0], k).name, 1) for k in (1, 3)]
    stacked = b.op("Mul", b.op("Concat", *parts, axis=1), b.weight(1, 2, x.dims[0], 1, 1))
    return Tensor(b.reduce("ReduceSum", stacked, [1], keepdims=0), x.dims)


@block(IMAGE)
def output(b: Builder, x: Tensor) -> Tensor:
    """A second output of the model."""
    if b.chance(0.3):
        b.outputs.append(x)
    else:
        b.outputs.append(b.conv(x, 3))
    return x


# -- blocks on tokens: N T D --------------------------------------------------------------------------


def softmax(b: Builder, x: str, rank: int) -> str:
    return b.op("Softmax", x, axis=rank - 1 if b.opset < 13 else b.pick([-1, rank - 1]))


@block(TOKENS)
def linear(b: Builder, x: Tensor) -> Tensor:
    return b.activate(b.linear(x, b.pick(WIDTHS)))


@block(TOKENS)
def flat_gemm(b: Builder, x: Tensor) -> Tensor:
    t, d = x.dims
    out = b.pick(WIDTHS)
    flat = b.op("Reshape", x.name, b.ints(-1, d))
    transposed = int(b.chance(0.5))
    shape = (out, d) if transposed else (d, out)
    bias = b.weight(*b.pick([(out,), (1, out), (1,)]))
    y = b.op("Gemm", flat, b.weight(*shape, fan=d), bias, transB=transposed)
    return Tensor(b.op("Reshape", y, b.ints(-1, t, out)), (t, out))


@block(TOKENS)
def mlp(b: Builder, x: Tensor) -> Tensor:
    y = b.linear(b.activate(b.linear(x, 2 * x.dims[1] if x.dims[1] <= 8 else 8)), x.dims[1])
    return Tensor(b.op("Add", x.name, y.name), x.dims)


@block(TOKENS)
def gated_mlp(b: Builder, x: Tensor) -> Tensor:
    """GLU: one projection split in two halves that multiply."""
    wide = b.linear(x, 12).name
    left, right = b.split(wide, [6, 6], b.pick([2, -1]))
    return b.linear(Tensor(b.op("Mul", left, b.op("Sigmoid", right)), (x.dims[0], 6)), x.dims[1])


@block(TOKENS)
def layer_norm(b: Builder, x: Tensor) -> Tensor:
    d = x.dims[-1]
    if b.opset >= 17 and b.chance(0.6):
        y = b.op("LayerNormalization", x.name, b.weight(d), b.weight(d), axis=-1, epsilon=1e-2)
        return Tensor(y, x.dims)
    centred = b.op("Sub", x.name, b.reduce("ReduceMean", x.name, [-1]))
    variance = b.reduce("ReduceMean", b.op("Pow", centred, b.scalar(2)), [-1])
    y = b.op("Div", centred, b.op("Sqrt", b.op("Add", variance, b.scalar(1e-2))))
    return Tensor(b.op("Add", b.op("Mul", y, b.weight(d)), b.weight(d)), x.dims)


@block(TOKENS)
def attention_fused(b: Builder, x: Tensor) -> Tensor:
    t, _ = x.dims
    heads, width = b.pick([(2, 4), (4, 2), (3, 4)])
    y = b.reshape(b.linear(x, 3 * heads * width).name, t, 3, heads, width)
    y = b.op("Transpose", y, perm=[2, 0, 3, 1, 4])
    if b.chance(0.5):
        q, k, v = (b.op("Gather", y, b.tensor(np.array(i, np.int64), "i"), axis=0) for i in range(3))
    else:
        q, k, v = (b.squeeze(part, 0) for part in b.split(y, [1, 1, 1], 0))
    return _attend(b, x, q, k, v, heads, width)


@block(TOKENS)
def attention_separate(b: Builder, x: Tensor) -> Tensor:
    t, _ = x.dims
    heads, width = b.pick([(2, 4), (4, 2), (1, 6), (3, 3)])
    q, k, v = (_to_heads(b, b.linear(x, heads * width), heads, width) for _ in range(3))
    if b.chance(0.3):
        q, k = _rotary(b, q, t, width), _rotary(b, k, t, width)
    return _attend(b, x, q, k, v, heads, width)


@block(TOKENS)
def attention_grouped(b: Builder, x: Tensor) -> Tensor:
    """Grouped queries: every key head is repeated for several query heads."""
    t, _ = x.dims
    kv, each, width = 2, 2, 4
    q = _to_heads(b, b.linear(x, kv * each * width), kv * each, width)
    k, v = (_to_heads(b, b.linear(x, kv * width), kv, width) for _ in range(2))
    k, v = (_repeat_heads(b, value, kv, each, t, width) for value in (k, v))
    return _attend(b, x, q, k, v, kv * each, width)


def _repeat_heads(b: Builder, x: str, heads: int, each: int, t: int, width: int) -> str:
    target = b.op("Concat", b.batch_of(x), b.ints(heads, each, t, width), axis=0)
    return b.reshape(b.op("Expand", b.unsqueeze(x, 2), target), heads * each, t, width)


def _to_heads(b: Builder, x: Tensor, heads: int, width: int) -> str:
    return b.op("Transpose", b.reshape(x.name, x.dims[0], heads, width), perm=[0, 2, 1, 3])


def _rotary(b: Builder, x: str, t: int, width: int) -> str:
    if width % 2:
        return x
    half = width // 2
    turned = b.op("Concat", b.op("Neg", b.slice(x, half, 2**31, 3)), b.slice(x, 0, half, 3), axis=-1)
    parts = [b.op("Mul", part, b.weight(t, width, share=False)) for part in (x, turned)]
    return b.op("Add", *parts)


def _attend(b: Builder, x: Tensor, q: str, k: str, v: str, heads: int, width: int) -> Tensor:
    t, d = x.dims
    if b.chance(0.5):
        size = b.op("Sqrt", b.op("Cast", b.size_of(q, 3), to=TensorProto.FLOAT))
    else:
        size = b.scalar(math.sqrt(width))
    scores = b.op("Div", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), size)
    if b.chance(0.3):
        scores = b.op("Add", scores, b.weight(*b.pick([(t, t), (1, heads, t, t), (heads, 1, 1)])))
    y = b.op("Transpose", b.op("MatMul", softmax(b, scores, 4), v), perm=[0, 2, 1, 3])
    y = b.linear(Tensor(b.reshape(y, t, heads * width), (t, heads * width)), d)
    return Tensor(b.op("Add", x.name, y.name), x.dims) if b.chance(0.7) else y


@block(TOKENS)
def attention_operator(b: Builder, x: Tensor) -> Tensor:
    t, d = x.dims
    heads, width = b.pick([(2, 4), (4, 2)])
    parts = [b.linear(x, heads * width).name for _ in range(3)]
    y = b.op("MultiHeadAttention", *parts, domain="com.microsoft", num_heads=heads)
    return b.linear(Tensor(y, (t, heads * width)), d)


@block(TOKENS)
def class_token(b: Builder, x: Tensor) -> Tensor:
    t, d = x.dims
    target = b.op("Concat", b.batch_of(x.name), b.ints(1, d), axis=0)
    first = b.op("Expand", b.weight(1, 1, d), target)
    return Tensor(b.op("Concat", first, x.name, axis=1), (t + 1, d))


@block(TOKENS)
def for_every_sample(b: Builder, x: Tensor) -> Tensor:
    """A constant that is as long as the batch: stored and repeated, or filled."""
    if b.recipe.batch is not None:
        return class_token(b, x)
    t, d = x.dims
    how, n = b.pick(["expand", "tile", "fill"]), b.batch_of(x.name)
    if how == "expand":
        y = b.op("Expand", b.weight(1, 1, d), b.op("Concat", n, b.ints(1, d), axis=0))
    elif how == "tile":
        y = b.op("Tile", b.weight(1, 1, d), b.op("Concat", n, b.ints(1, 1), axis=0))
    else:
        fill = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.5])
        y = b.op("ConstantOfShape", b.op("Concat", n, b.ints(1, d), axis=0), value=fill)
    for _ in range(b.pick([0, 1, 2])):
        kind = b.pick(["Add", "Mul", "Tanh", "PRelu"])
        operands = [] if kind == "Tanh" else [b.weight(d) if b.chance(0.5) else b.scalar(0.5)]
        y = b.op(kind, y, *operands)
    if b.chance(0.5):
        return Tensor(b.op("Concat", y, x.name, axis=1), (t + 1, d))
    return Tensor(b.op(b.pick(["Add", "Mul", "Sub"]), x.name, y), x.dims)


@block(TOKENS)
def merged_with_batch(b: Builder, x: Tensor) -> Tensor:
    """A factor of the width is merged with the batch, as heads are, and slices take the whole of it."""
    t, d = x.dims
    outer = b.pick([2, d // 2]) if d % 2 == 0 else 1
    batch = b.batch_of(x.name)
    y = b.op("Transpose", b.reshape(x.name, t, outer, d // outer), perm=[0, 2, 1, 3])
    target = b.op("Concat", b.op("Mul", batch, b.ints(outer)), b.ints(t, d // outer), axis=0)
    y = b.op("Reshape", y, target if b.chance(0.5) else b.ints(-1, t, d // outer))
    if b.chance(0.5):
        y = b.slice(y, 0, 2**63 - 1, 0)
    y = b.op("Tanh", y)
    y = b.op("Reshape", y, b.op("Concat", batch, b.ints(outer, t, d // outer), axis=0))
    return Tensor(b.reshape(b.op("Transpose", y, perm=[0, 2, 1, 3]), t, d), x.dims)


@block(TOKENS)
def position(b: Builder, x: Tensor) -> Tensor:
    return Tensor(b.op("Add", x.name, b.weight(1, *x.dims)), x.dims)


@block(TOKENS)
def token_scale(b: Builder, x: Tensor) -> Tensor:
    return Tensor(b.combine(x.name, b.per_channel(x)), x.dims)


@block(TOKENS)
def token_skip(b: Builder, x: Tensor) -> Tensor:
    return Tensor(b.combine(x.name, b.same(x).name), x.dims)


@block(TOKENS)
def token_mixer(b: Builder, x: Tensor) -> Tensor:
    """MLP-Mixer: a product over tokens, which are no channels before it."""
    t, d = x.dims
    y = b.linear(b.activate(b.linear(Tensor(b.op("Transpose", x.name, perm=[0, 2, 1]), (d, t)), 6)), t)
    return Tensor(b.op("Transpose", y.name, perm=[0, 2, 1]), x.dims)


@block(TOKENS)
def recurrent(b: Builder, x: Tensor) -> Tensor:
    t, d = x.dims
    kind, hidden = b.pick(["LSTM", "GRU", "RNN"]), b.pick([4, 6])
    both = b.chance(0.5)
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if both else 1
    inputs = [
        b.op("Transpose", x.name, perm=[1, 0, 2]),
        b.weight(directions, gates * hidden, d, fan=d),
        b.weight(directions, gates * hidden, hidden, fan=hidden),
    ]
    if b.chance(0.6):
        inputs.append(b.weight(directions, 2 * gates * hidden))
    extra = {"linear_before_reset": 1} if kind == "GRU" and b.chance(0.5) else {}
    direction = "bidirectional" if both else b.pick(["forward", "reverse"])
    y = b.op(kind, *inputs, hidden_size=hidden, direction=direction, **extra)  # t d n h
    if not both and b.chance(0.5):
        y = b.op("Transpose", b.squeeze(y, 1), perm=[1, 0, 2])
    else:
        y = b.reshape(b.op("Transpose", y, perm=[2, 0, 1, 3]), t, directions * hidden)
    return Tensor(y, (t, directions * hidden))


@block(TOKENS)
def last_state(b: Builder, x: Tensor) -> Tensor:
    """The final hidden states of a recurrence as a vector."""
    _, d = x.dims
    hidden = 4
    inputs = [b.weight(1, 4 * hidden, d, fan=d), b.weight(1, 4 * hidden, hidden, fan=hidden)]
    turned = b.op("Transpose", x.name, perm=[1, 0, 2])
    _, h, c = b.op("LSTM", turned, *inputs, n=3, hidden_size=hidden)
    return Tensor(b.op("Add", b.squeeze(h, 0), b.squeeze(c, 0)), (hidden,))


@block(TOKENS)
def windows(b: Builder, x: Tensor) -> Tensor:
    """Swin: windows of tokens by Reshape and Transpose, a product inside, and back."""
    t, d = x.dims
    if t % 4:
        return linear(b, x)
    y = b.op("Reshape", x.name, b.ints(-1, 2, t // 4, 2, d))
    y = b.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = b.op("Reshape", y, b.ints(-1, 4, d))
    y = b.linear(Tensor(y, (4, d)), d)
    y = b.op("Reshape", y.name, b.ints(-1, t // 4, 2, 2, d))
    y = b.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    return Tensor(b.reshape(y, t, d), x.dims)


@block(TOKENS)
def roll(b: Builder, x: Tensor) -> Tensor:
    t = x.dims[0]
    if t < 2:
        return x
    return Tensor(b.op("Concat", b.slice(x.name, 1, t, 1), b.slice(x.name, 0, 1, 1), axis=1), x.dims)


@block(TOKENS)
def patch_merge(b: Builder, x: Tensor) -> Tensor:
    t, d = x.dims
    if t % 2 or d > 12:
        return linear(b, x)
    if b.chance(0.5):
        y = b.op("Concat", b.slice(x.name, 0, t, 1, 2), b.slice(x.name, 1, t, 1, 2), axis=-1)
    else:
        y = b.reshape(x.name, t // 2, 2 * d)
    return b.linear(Tensor(y, (t // 2, 2 * d)), d)


@block(TOKENS)
def regroup(b: Builder, x: Tensor) -> Tensor:
    """Width split in two axes and read in another order: a shuffle, or labels over two axes."""
    t, d = x.dims
    if d % 2:
        return linear(b, x)
    y = b.reshape(x.name, t, 2, d // 2)
    if b.chance(0.5):
        y = b.op("Transpose", y, perm=[0, 1, 3, 2])
    else:
        y = b.op("Mul", y, b.weight(2, 1))
    return Tensor(b.reshape(y, t, d), x.dims)


# -- blocks on vectors: N C ---------------------------------------------------------------------------


@block(VECTOR)
def gemm(b: Builder, x: Tensor) -> Tensor:
    (c,) = x.dims
    out = b.pick(WIDTHS)
    transposed = int(b.chance(0.5))
    inputs = [x.name, b.weight(*((out, c) if transposed else (c, out)), fan=c)]
    if b.chance(0.6) or b.opset < 11:
        inputs.append(b.weight(out))
    return Tensor(b.op("Gemm", *inputs, transB=transposed, alpha=b.pick([1.0, 0.5])), (out,))


@block(VECTOR)
def gemm_residual(b: Builder, x: Tensor) -> Tensor:
    if x.dims[0] > 32:
        return gemm(b, x)
    return Tensor(b.combine(x.name, b.activate(b.linear(x, x.dims[0])).name), x.dims)


@block(VECTOR)
def vector_norm(b: Builder, x: Tensor) -> Tensor:
    return batch_norm(b, x) if x.dims[0] <= 64 else gemm(b, x)


@block(VECTOR)
def vector_scale(b: Builder, x: Tensor) -> Tensor:
    return Tensor(b.combine(x.name, b.per_channel(x)), x.dims)


@block(VECTOR)
def turned_gemm(b: Builder, x: Tensor) -> Tensor:
    """Gemm with both operands transposed."""
    (c,) = x.dims
    turned = b.op("Transpose", x.name, perm=[1, 0])
    out = b.pick(WIDTHS)
    y = b.op("Gemm", turned, b.weight(out, c, fan=c), b.weight(out), transA=1, transB=1)
    return Tensor(y, (out,))


# -- whole networks -----------------------------------------------------------------------------------

BLOCKS: dict[str, tuple[int, Block]] = {
    **{name: (3, f) for name, f in IMAGE.items()},
    **{name: (2, f) for name, f in TOKENS.items()},
    **{name: (1, f) for name, f in VECTOR.items()},
}
"""Block name -> (rank after the batch axis of the tensor it reads, function)."""


def rare_blocks() -> dict[str, tuple[int, Block]]:
    """The blocks of tests.rare_blocks, where that is imported."""
    return {name: (3, f) for name, f in RARE_IMAGE.items()} | {
        name: (2, f) for name, f in RARE_TOKENS.items()
    }


def build(recipe: Recipe) -> onnx.ModelProto:
    """The network of a recipe: its blocks between a first convolution and a last contraction."""
    b = Builder(recipe)
    size = b.pick([4, 6, 8])
    x = b.conv(Tensor("input", (3, size, size)), b.pick(WIDTHS), 3)
    for name, seed in recipe.blocks:
        b.rng = np.random.default_rng([recipe.seed, seed])
        rank, function = BLOCKS[name] if name in BLOCKS else rare_blocks()[name]
        x = {3: b.image, 2: b.tokens, 1: b.vector}[rank](x)
        b.saved.append(x)
        x = function(b, x)
    b.rng = np.random.default_rng(recipe.seed + 1)
    last = _head(b, x)
    outputs = list({t.name: t for t in (last, *b.outputs)}.values())
    return _model(b, outputs, size)


def _head(b: Builder, x: Tensor) -> Tensor:
    if len(x.dims) == 3 and b.chance(0.3):
        return b.conv(x, 3)
    if len(x.dims) == 2 and b.chance(0.3):
        return b.linear(x, 3)
    return b.linear(b.vector(x), 5)


def _model(b: Builder, outputs: Sequence[Tensor], size: int) -> onnx.ModelProto:
    batch = "N" if b.recipe.batch is None else b.recipe.batch
    graph = helper.make_graph(
        b.nodes,
        "random",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, [batch, *t.dims]) for t in outputs],
        b.tensors,
    )
    opsets = [helper.make_opsetid("", b.opset)]
    if any(n.domain for n in b.nodes):
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    model = helper.make_model(graph, opset_imports=opsets, producer_name="random_graphs")
    model.ir_version = IR_VERSIONS[b.opset]
    return model


def recipes(max_blocks: int = 6, *, rare: bool = False) -> st.SearchStrategy[Recipe]:
    """Recipes of up to ``max_blocks`` blocks; ``rare``: of those of tests.rare_blocks too."""
    names = sorted(BLOCKS) + (sorted(rare_blocks()) if rare else [])
    blocks = st.tuples(st.sampled_from(names), st.integers(0, 2**20))
    return st.builds(
        Recipe,
        blocks=st.lists(blocks, min_size=1, max_size=max_blocks).map(tuple),
        seed=st.integers(0, 2**20),
        opset=st.sampled_from(OPSETS),
        batch=st.sampled_from([None, 1, 2]),
    )


def random_recipe(seed: int, max_blocks: int = 6) -> Recipe:
    """A recipe drawn without hypothesis, for long searches."""
    rng = np.random.default_rng(seed)
    names = sorted(BLOCKS)
    count = int(rng.integers(1, max_blocks + 1))
    return Recipe(
        blocks=tuple((names[int(rng.integers(len(names)))], int(rng.integers(1000))) for _ in range(count)),
        seed=seed,
        opset=OPSETS[int(rng.integers(len(OPSETS)))],
        batch=(None, 1, 2)[int(rng.integers(3))],
    )
