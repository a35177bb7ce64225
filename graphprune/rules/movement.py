"""Data movement: the labels move exactly as the data does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphprune import labels as lab
from graphprune.coupler import Coupler
from graphprune.edits import Edit, Kept, ReplaceBySelection, SetAttr, SetInput
from graphprune.graph import Node
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.rules.matmul import embedding
from graphprune.rules.registry import operand, rule


def parameter(node: Node, name: str, index: int) -> list[int] | None:
    """An integer list that older opsets hold as attribute ``name``, newer ones as input ``index``.

    None where it is absent or only known at run time.
    """
    if node.attr(name) is not None:
        value: Any = node.attr(name)
        return [int(v) for v in (value if isinstance(value, list) else [value])]
    given = node.input(index)
    if given is None or given.known is None:
        return None
    return [int(v) for v in np.atleast_1d(given.known)]


def is_given(node: Node, name: str, index: int) -> bool:
    """Whether the parameter exists at all, known or not."""
    return node.attr(name) is not None or node.input(index) is not None


def set_parameter(node: Node, name: str, index: int, values: Sequence[int]) -> Edit:
    """The edit that rewrites such a parameter where the node has it."""
    if node.attr(name) is not None:
        return SetAttr(name, [int(v) for v in values])
    return SetInput(index, np.asarray(values, np.int64))


@rule("Transpose", settle=False, weights=True)
def transpose(c: Coupler, n: Node, x: Labels) -> Labels:
    """Axes are permuted."""
    return lab.transpose(x, n.attr("perm") or tuple(reversed(range(x.rank))))


@rule("Flatten", "Squeeze", "Unsqueeze", settle=False, weights=True)
@rule("Reshape", settle=False, weights=True, sizes=1)
def reshape(c: Coupler, n: Node, x: Labels, *_: Labels | None) -> Labels:
    """Factor groups of the two shapes are matched; a literal target is rewritten."""
    y = lab.reshape(x, n.outputs[0].shape or ())
    target = n.input(1)
    if n.op == "Reshape" and y.terms and target is not None:
        c.on_prune(n, lambda kept: [SetInput(1, np.array(kept.shape(y), np.int64), keep_symbols=True)])
    return y


@rule("Concat", settle=False, weights=True)
def concat(c: Coupler, n: Node, *operands: Labels) -> Labels:
    """Along a tracked axis labels are joined; along another the operands tie."""
    rank = operands[0].rank
    axis = n.attr("axis", 0 if n.op == "Concat" else 1) % rank
    if any(len(x.axes_of(t)) > 1 for x in operands for t in x.terms):
        if _same_layout(operands, axis):
            return _concat_grids(operands, axis)
        operands = tuple(c.settle(x, n, avoid=[axis]) for x in operands)
    if n.outputs[0].constant:
        _note_parts(c, operands, axis)
    size = sum(x.shape[axis] for x in operands)
    if not any(x.on(axis) for x in operands):
        joined = c.broadcast(n, [lab.resized(x, axis, 1) for x in operands])
        return lab.resized(joined, axis, size)
    parts = [np.zeros(x.shape[axis], np.int64) if (v := lab.vector(x, axis)) is None else v for x in operands]
    rest = c.broadcast(n, [lab.resized(x.without(x.on(axis)), axis, 1) for x in operands])
    rest = lab.resized(rest, axis, size)
    along = Labels.vector([size if a == axis else 1 for a in range(rank)], axis, np.concatenate(parts))
    rest, along = lab.aligned([rest, along])
    return Labels(rest.factors, rest.terms + along.terms)


def _note_parts(c: Coupler, operands: Sequence[Labels], axis: int) -> None:
    """Weights that are joined along ``axis``: whoever sums over another axis sums over it in all of them."""
    for other in set(range(operands[0].rank)) - {axis}:
        vectors = [lab.vector(x, other) for x in operands if len(x.on(other)) == 1]
        if len(vectors) > 1:
            c.parts.append([ids for ids in vectors if ids is not None])


def _same_layout(operands: Sequence[Labels], axis: int) -> bool:
    """One term each, and the same factors on every other axis."""

    def layout(x: Labels) -> Any:
        return x.factors[:axis], x.factors[axis + 1 :]

    return all(len(x.terms) == 1 and layout(x) == layout(operands[0]) for x in operands)


def _concat_grids(operands: Sequence[Labels], axis: int) -> Labels:
    """Join terms that vary over several axes (halves of rotary embeddings)."""
    whole = [lab.merged(x, axis) for x in operands]
    (dim,) = whole[0].dims(axis)
    shape = np.broadcast_shapes(*(_without(x.terms[0].shape, dim) for x in whole))
    parts = [np.broadcast_to(x.terms[0], shape[:dim] + (x.shape[axis],) + shape[dim + 1 :]) for x in whole]
    term = np.concatenate(parts, axis=dim)
    return Labels(whole[0].factors[:axis] + ((term.shape[dim],),) + whole[0].factors[axis + 1 :], (term,))


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return shape[:dim] + (1,) + shape[dim + 1 :]


@rule("Split", settle=False, weights=True, sizes=1)
def split(c: Coupler, n: Node, x: Labels, _: Labels | None = None) -> tuple[Labels, ...]:
    """Labels are cut where the data is; sizes are rewritten."""
    axis = n.attr("axis", 0) % x.rank
    outs, start = [], 0
    for out in n.outputs:
        size = (out.shape or x.shape)[axis]
        outs.append(lab.take(x, axis, slice(start, start + size)))
        start += size
    if x.on(axis):

        def rewrite(kept: Kept) -> list[Edit]:
            sizes = [kept.shape(y)[axis] for y in outs]
            if is_given(n, "split", 1):
                return [set_parameter(n, "split", 1, sizes)]
            if len(set(sizes)) == 1:
                return []
            if n.opset < 13:
                return [SetAttr("split", sizes)]
            return [SetAttr("num_outputs", None), SetInput(1, np.array(sizes, np.int64))]

        c.on_prune(n, rewrite)
    return tuple(outs)


def _slices(n: Node, x: Labels) -> list[slice] | None:
    starts, ends = parameter(n, "starts", 1), parameter(n, "ends", 2)
    if starts is None or ends is None:
        return None
    axes, steps = parameter(n, "axes", 3), parameter(n, "steps", 4)
    if (axes is None and is_given(n, "axes", 3)) or (steps is None and is_given(n, "steps", 4)):
        return None
    index = [slice(None)] * x.rank
    axes = list(range(len(starts))) if axes is None else axes
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        size = x.shape[axis]
        index[axis % x.rank] = slice(start, None if step < 0 and end < -size else end, step)
    return index


@rule("Slice", settle=False, weights=True)
def slice_(c: Coupler, n: Node, x: Labels, *_: Labels | None) -> Labels:
    """Labels are cut where the data is; bounds on a tracked axis are rewritten."""
    index, shape = _slices(n, x), n.outputs[0].shape or ()
    if index is None:
        given = parameter(n, "axes", 3)
        axes = range(x.rank) if given is None else [a % x.rank for a in given]
        y = c.freeze_axes(x, axes, Reason.DATA_DEPENDENT, n)
        for a in axes:
            y = lab.resized(y, a, shape[a])
        return y
    y = x
    for axis, cut in enumerate(index):
        if cut.indices(x.shape[axis]) != (0, x.shape[axis], 1):
            y = lab.take(y, axis, cut)
    cuts = [a for a, cut in enumerate(index) if cut != slice(None) and x.on(a)]
    if cuts:
        c.on_prune(n, lambda kept: _slice_edits(n, x, index, cuts, kept))
    return y


def _slice_edits(n: Node, x: Labels, index: list[slice], cuts: list[int], kept: Kept) -> list[Edit]:
    starts, ends = parameter(n, "starts", 1) or [], parameter(n, "ends", 2) or []
    axes = parameter(n, "axes", 3) or list(range(len(starts)))
    starts, ends, edited = list(starts), list(ends), False
    for axis in cuts:
        mask = kept.axis_mask(x, axis)
        if mask.all():
            continue
        old = np.arange(mask.size)[index[axis]]
        position = np.cumsum(mask) - 1
        new = position[old[mask[old]]]
        step = index[axis].step or 1
        bounds = _bounds(new, step, int(mask.sum()))
        if bounds is None:
            if len([i for i in index if i != slice(None)]) > 1:
                raise ValueError("a strided slice over several axes cannot be rewritten")
            return [ReplaceBySelection(operand(n.input(0)).name, 0, axis, new)]
        at = [a % x.rank for a in axes].index(axis)
        starts[at] = bounds[0]
        if new.size == 0 or not _open_end(ends[at], step, mask.size):
            ends[at] = bounds[1]
        edited = True
    if not edited:
        return []
    return [set_parameter(n, "starts", 1, starts), set_parameter(n, "ends", 2, ends)]


def _open_end(end: int, step: int, size: int) -> bool:
    """Whether an end lies beyond the axis: it means "to the end" at any size, which a number would not."""
    return end > size if step > 0 else end < -size


def _bounds(new: np.ndarray, step: int, size: int) -> tuple[int, int] | None:
    """start, end that select exactly the positions ``new`` with ``step``; None where none do."""
    if new.size == 0:
        return (0, 0)
    if np.any(np.diff(new) != step):
        return None
    end = int(new[-1]) + (1 if step > 0 else -1)
    return int(new[0]), end if end >= 0 else -size - 1


@rule("Gather", settle=False, weights=True)
def gather(c: Coupler, n: Node, x: Labels, index: Labels) -> Labels:
    """A constant index selects labels; a look-up by data freezes the axis."""
    source, chosen = operand(n.input(0)), operand(n.input(1))
    axis = n.attr("axis", 0) % x.rank
    if chosen.known is None:
        c.freeze_all(index, Reason.DATA_DEPENDENT, n)
        if source.constant:
            return embedding(c, n, c.settle(x, n), axis, index.rank)
        x = c.freeze_axes(x, [axis], Reason.DATA_DEPENDENT, n)
        return _with_index_axes(lab.resized(x, axis, int(np.prod(index.shape))), axis, index.shape)
    positions = np.asarray(chosen.known, np.int64) % max(x.shape[axis], 1)
    if x.on(axis) and positions.ndim > 1:
        x = c.freeze_axes(x, [axis], Reason.DATA_DEPENDENT, n)
    y = lab.take(x, axis, positions.reshape(-1))
    if x.on(axis):

        def rewrite(kept: Kept) -> list[Edit]:
            mask = kept.axis_mask(x, axis)
            if mask.all():
                return []
            flat = positions.reshape(-1)
            new = (np.cumsum(mask) - 1)[flat[mask[flat]]]
            return [SetInput(1, new.reshape(() if positions.ndim == 0 else (-1,)))]

        c.on_prune(n, rewrite)
    return _with_index_axes(y, axis, positions.shape)


def _with_index_axes(x: Labels, axis: int, shape: Sequence[int]) -> Labels:
    if len(shape) == 1:
        return x
    new = x.shape[:axis] + tuple(shape) + x.shape[axis + 1 :]
    return lab.reshape(x, new)


@rule("Expand", settle=False, weights=True, sizes=1)
def expand(c: Coupler, n: Node, x: Labels, _: Labels | None = None) -> Labels:
    """An axis that grows from 1 gets labels of its own, so that what it meets stays removable."""
    y = _grown(c, n, x, n.outputs[0].shape or ())
    target = n.input(1)
    if y.terms and target is not None and target.known is not None:
        literal = target.known

        def rewrite(kept: Kept) -> list[Edit]:
            want = np.array(kept.shape(y)[y.rank - literal.size :], np.int64)
            return [SetInput(1, np.where(literal == 1, 1, want))]

        c.on_prune(n, rewrite)
    return y


def _grown(c: Coupler, n: Node, x: Labels, shape: Sequence[int]) -> Labels:
    for _ in range(len(shape) - x.rank):
        x = lab.insert_axis(x, 0)
    new: dict[int, np.ndarray | None] = {}
    for axis, size in enumerate(shape):
        if x.shape[axis] != size:
            new[axis] = c.fresh(size)
            x = lab.resized(x, axis, size)
    if not new:
        return x
    virtual = Labels.vectors(shape, new)
    sized = Labels.untracked(shape)
    x, virtual, _ = lab.aligned([x, virtual, sized])
    return Labels(x.factors, x.terms + virtual.terms)


@rule("Tile", settle=False, weights=True, sizes=1)
def tile(c: Coupler, n: Node, x: Labels, _: Labels | None = None) -> Labels:
    """A tracked axis repeats its labels; an axis that grows from 1 gets labels of its own."""
    repeats, shape = parameter(n, "repeats", 1), n.outputs[0].shape or ()
    y = x
    for axis, size in enumerate(shape):
        if size == x.shape[axis] or x.shape[axis] == 1:
            continue
        if x.on(axis):
            y = lab.take(y, axis, np.tile(np.arange(x.shape[axis]), size // x.shape[axis]))
        else:
            y = lab.resized(y, axis, size)
    y = _grown(c, n, y, shape)
    grown = [a for a in range(x.rank) if x.shape[a] == 1 and shape[a] > 1]
    if grown and repeats is not None:

        def rewrite(kept: Kept) -> list[Edit]:
            sizes = kept.shape(y)
            new = [sizes[a] if a in grown else r for a, r in enumerate(repeats)]
            return [set_parameter(n, "repeats", 1, new)]

        c.on_prune(n, rewrite)
    return y


@rule("Pad", settle=False, weights=True)
def pad(c: Coupler, n: Node, x: Labels, *_: Labels | None) -> Labels:
    """Positions made along a tracked axis get labels of their own; amounts are rewritten."""
    shape, pads = n.outputs[0].shape or (), parameter(n, "pads", 1)
    axes = parameter(n, "axes", 3) or list(range(x.rank))
    if pads is None:
        x = c.freeze_axes(x, range(x.rank), Reason.DATA_DEPENDENT, n)
    before, after = [0] * x.rank, [0] * x.rank
    for i, a in enumerate(axes if pads is not None else []):
        assert pads is not None
        before[a % x.rank], after[a % x.rank] = pads[i], pads[i + len(axes)]
    constant = n.attr("mode", "constant") == "constant"
    padded = [a for a in range(x.rank) if (before[a] or after[a]) and x.on(a)]
    if not constant or any(before[a] < 0 or after[a] < 0 for a in padded):
        x, padded = c.freeze_axes(x, padded, Reason.MODE, n), []
    if padded:
        x = c.settle(x, n)
    y, ends = x, {}
    for axis in range(x.rank):
        if axis in padded and x.on(axis):
            ids = lab.vector(y, axis)
            assert ids is not None
            ends[axis] = (c.fresh(before[axis]), c.fresh(after[axis]))
            grown = np.concatenate([ends[axis][0], ids, ends[axis][1]])
            rest = lab.resized(y.without(y.on(axis)), axis, grown.size)
            along = Labels.vector([grown.size if a == axis else 1 for a in range(x.rank)], axis, grown)
            rest, along = lab.aligned([rest, along])
            y = Labels(rest.factors, rest.terms + along.terms)
        elif not y.on(axis):
            y = lab.resized(y, axis, shape[axis])
    if ends:

        def rewrite(kept: Kept) -> list[Edit]:
            new = list(pads or [])
            for i, a in enumerate(axes):
                if a % x.rank in ends:
                    first, last = ends[a % x.rank]
                    new[i], new[i + len(axes)] = kept.count(first), kept.count(last)
            return [set_parameter(n, "pads", 1, new)]

        c.on_prune(n, rewrite)
    return y


@rule("ConstantOfShape", weights=True, sizes=0)
def constant_of_shape(c: Coupler, n: Node, _: Labels | None = None) -> Labels:
    """A filled tensor: every axis gets labels of its own; its shape is rewritten."""
    out = n.outputs[0]
    if out.constant:
        y = c.stored(out)
    else:
        y = Labels.vectors(out.shape or (), {a: c.fresh(s) for a, s in enumerate(out.shape or ()) if s > 1})
    c.on_prune(n, lambda kept: [SetInput(0, np.array(kept.shape(y), np.int64))])
    return y


@rule("Shape", "Size", settle=False, weights=True)
def shape_of(c: Coupler, n: Node, x: Labels) -> Labels:
    """Sizes are read, not values: nothing is coupled."""
    return Labels.untracked(n.outputs[0].shape or ())
