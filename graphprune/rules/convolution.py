"""Convolutions, 1-D to 3-D: dense, grouped, depthwise with multiplier, transposed, quantised."""

from __future__ import annotations

import math

import numpy as np

from graphprune import labels as lab
from graphprune.coupler import Coupler
from graphprune.edits import SetAttr
from graphprune.graph import Node, Value
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.records import Work
from graphprune.rules.registry import operand, rule


@rule("Conv", "com.microsoft::FusedConv")
def conv(
    c: Coupler, n: Node, x: Labels, w: Labels, b: Labels | None = None, z: Labels | None = None
) -> Labels:
    """Input channels tie to the weight's axis 1, output channels are new (depthwise: the same)."""
    out = convolve(c, n, x, operand(n.input(1)), w, [b])
    return out if z is None else c.broadcast(n, [out, z])


@rule("ConvInteger")
def conv_integer(
    c: Coupler, n: Node, x: Labels, w: Labels, x_zero: Labels | None = None, w_zero: Labels | None = None
) -> Labels:
    """As Conv; a per-channel zero point of the weight is sliced with the output channels."""
    return convolve(c, n, x, operand(n.input(1)), w, [w_zero])


@rule("QLinearConv")
def qlinear_conv(
    c: Coupler, n: Node, x: Labels, xs: Labels, xz: Labels, w: Labels, ws: Labels, wz: Labels,
    ys: Labels, yz: Labels, b: Labels | None = None,
) -> Labels:  # fmt: skip
    """As Conv; the weight's per-channel scales and zero points are sliced with the output channels."""
    return convolve(c, n, x, operand(n.input(3)), w, [ws, wz, b])


def convolve(
    c: Coupler, n: Node, x: Labels, weight: Value, w: Labels, per_output: list[Labels | None]
) -> Labels:
    """Labels of a convolution's output; ``per_output`` are vectors with one entry per output channel."""
    # x: n (g i) *   w: (g o) i *   y: n (g o) *
    shape = n.outputs[0].shape or ()
    if not weight.constant:
        c.freeze_all(x, Reason.DYNAMIC_WEIGHT, n)
        c.freeze_all(w, Reason.DYNAMIC_WEIGHT, n)
        return Labels.untracked(shape)
    groups, inner = n.attr("group", 1), w.shape[1]
    if groups < 1 or w.shape[0] % groups or x.shape[1] != inner * groups:
        raise ValueError("the weight does not fit its input in so many groups")
    channels = c.only(x, 1, n)
    filters = lab.vector(w, 0)
    positions = shape[0] * math.prod(shape[2:]) * math.prod(w.shape[2:])
    if groups == 1:
        columns = _consumed(c, n, channels, lab.vector(w, 1))
        c.channels(filters, n)
        out = filters
    elif inner == 1:
        out = _depthwise(c, n, channels, filters, groups)
        columns = None
    else:
        out, columns = filters, None
        c.channels(filters, n)
        _balanced_rows(c, n, channels, filters, weight, groups, inner, axis=1)
    for extra in per_output:
        if extra is not None and extra.shape and extra.shape[-1] == w.shape[0]:
            out = c.tie_vectors(out, lab.vector(extra, extra.rank - 1), n)
    _work(c, n, positions, out, w.shape[0], channels if groups > 1 else columns, inner * groups, groups)
    return Labels.vector(shape, 1, out)


@rule("ConvTranspose")
def conv_transpose(c: Coupler, n: Node, x: Labels, w: Labels, b: Labels | None = None) -> Labels:
    """Input channels tie to the weight's axis 0, output channels are new along axis 1."""
    # x: n (g i) *   w: (g i) o *   y: n (g o) *
    shape, weight, groups = n.outputs[0].shape or (), operand(n.input(1)), n.attr("group", 1)
    if not weight.constant:
        c.freeze_all(x, Reason.DYNAMIC_WEIGHT, n)
        return Labels.untracked(shape)
    if groups < 1 or w.shape[0] % groups or x.shape[1] != w.shape[0]:
        raise ValueError("the weight does not fit its input in so many groups")
    channels, rows, width = c.only(x, 1, n), lab.vector(w, 0), w.shape[1]
    positions = math.prod(x.shape[2:]) * shape[0] * math.prod(w.shape[2:])
    if groups == 1:
        rows = _consumed(c, n, channels, rows)
        out = lab.vector(w, 1)
        c.channels(out, n)
    elif w.shape[0] == groups:
        out = _depthwise(c, n, channels, rows, groups, multiplier=width)
    else:
        rows = _consumed(c, n, channels, rows)
        if rows is not None:
            c.balance("conv_groups", n, rows.reshape(groups, -1))
        # axis 1 is stored once for all groups: each group may lose its own output positions
        store = c.storage(weight)
        out = c.fresh(groups * width) if width > 1 and store is not None else None
        if out is not None and store is not None and c.row_slice(store, 1, out.reshape(groups, width), n):
            c.channels(out, n)
            c.balance("conv_groups", n, out.reshape(groups, width))
    if b is not None:
        out = c.tie_vectors(out, lab.vector(b, 0), n)
    _work(c, n, positions, out, width * groups, channels, w.shape[0], groups)
    return Labels.vector(shape, 1, out)


def _depthwise(
    c: Coupler,
    n: Node,
    channels: np.ndarray | None,
    stored: np.ndarray | None,
    groups: int,
    multiplier: int | None = None,
) -> np.ndarray | None:
    # one input channel per group: y: n (g m) * carries the labels of x: n g *
    each = multiplier or (stored.size // groups if stored is not None else 1)
    if channels is None:
        if stored is not None:
            c.freeze(stored, Reason.FIXED_OPERAND, n)
        return None
    out = np.repeat(channels, each)
    if stored is not None:
        c.tie(stored, channels if multiplier else out)
    c.on_prune(n, lambda kept: [SetAttr("group", kept.count(channels))])
    return out


def _balanced_rows(
    c: Coupler,
    n: Node,
    channels: np.ndarray | None,
    filters: np.ndarray | None,
    weight: Value,
    groups: int,
    inner: int,
    axis: int,
) -> None:
    """Every conv group keeps equally many inputs and equally many outputs; positions are its own."""
    if filters is not None:
        c.balance("conv_groups", n, filters.reshape(groups, -1))
    if channels is None:
        return
    store = c.storage(weight)
    rows = channels.reshape(groups, inner)
    if store is None or store.shape != weight.shape:
        c.freeze(channels, Reason.DYNAMIC_WEIGHT, n)
        return
    own = c.fresh(channels.size).reshape(groups, inner)
    c.tie(own, rows)
    if c.row_slice(store, axis, own, n):
        c.balance("conv_groups", n, rows)
        c.contracted.append(own)


def _consumed(
    c: Coupler, n: Node, channels: np.ndarray | None, columns: np.ndarray | None
) -> np.ndarray | None:
    """Tie input channels to the weight axis that sums over them."""
    tied = c.tie_vectors(channels, columns, n)
    if tied is not None and columns is not None:
        c.contracted.append(columns)
    return tied


def _work(
    c: Coupler,
    n: Node,
    positions: int,
    out: np.ndarray | None,
    out_size: int,
    inputs: np.ndarray | None,
    in_size: int,
    groups: int,
) -> None:
    """MACs = positions x kernel x outputs x inputs / conv groups; depthwise reads one input each."""
    depthwise = groups > 1 and in_size == groups
    vectors = [v for v in (out, None if depthwise else inputs) if v is not None]
    coefficient = float(positions)
    if out is None:
        coefficient *= out_size
    if not depthwise:
        coefficient *= (1 if inputs is not None else in_size) / groups
    c.works.append(Work(n, coefficient, tuple(vectors)))
