"""Shape arithmetic that was not folded: sizes that only exist when the module runs."""

from __future__ import annotations

import operator

import numpy as np
import torch
from torch import fx

from graphprune.fx.attributes import torch_dtype
from graphprune.fx.conversion import Conversion
from graphprune.fx.registry import converter
from graphprune.graph import Node


@converter("Shape", arithmetic=True)
def shape(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """The sizes of x, from ``start`` to ``end``."""
    sizes = c.emit(getattr, x, "shape")
    wanted = slice(n.attr("start", 0), n.attr("end"))
    if wanted != slice(0, None):
        sizes = c.emit(operator.getitem, sizes, wanted)
    return c.method("new_tensor", c.precision, sizes, dtype=torch.int64)


@converter("Size", arithmetic=True)
def size(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """The number of elements of x."""
    return c.method("new_tensor", c.precision, c.method("numel", x), dtype=torch.int64)


@converter("ConstantOfShape", literals=(0,), arithmetic=True)
def constant_of_shape(c: Conversion, n: Node, _: None) -> fx.Node:
    """One number everywhere."""
    fill = np.asarray(n.attr("value", np.zeros(1, np.float32))).reshape(-1)
    dtype = torch_dtype(str(fill.dtype))
    if dtype is None:
        raise c.refuse(n, f"PyTorch cannot compute in {fill.dtype}")
    # a float without a type of its own takes the module's
    kind = {} if dtype == torch.float32 else {"dtype": dtype}
    return c.method("new_full", c.precision, c.ints(n, 0), fill[0].item(), **kind)


@converter("Range", literals=(0, 1, 2), arithmetic=True)
def arange(c: Conversion, n: Node, *_: None) -> fx.Node:
    """start, start + delta, ... below limit; integers may follow the batch size."""
    bounds = [(c.ints(n, i) or [0])[0] for i in range(3)]
    dtype = torch_dtype(n.outputs[0].dtype)
    return c.emit(torch.arange, *bounds, dtype=dtype, device=c.emit(getattr, c.precision, "device"))


@converter("NonZero", arithmetic=True)
def nonzero(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Indices of what is not 0, one row per axis."""
    return c.emit(torch.t, c.emit(torch.nonzero, x))


@converter("EyeLike", arithmetic=True)
def eye_like(c: Conversion, n: Node, x: fx.Node) -> fx.Node:
    """Ones on the k-th diagonal, in the shape of x."""
    ones = c.emit(torch.ones_like, x)
    offset = n.attr("k", 0)
    return c.emit(torch.tril, c.emit(torch.triu, ones, offset), offset)
