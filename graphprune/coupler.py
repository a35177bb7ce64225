"""What a rule may do: give labels, tie them, freeze them, and note what pruning must rewrite.

A rule reads its inputs' labels and returns its outputs'. Everything else it has to say goes through
the :class:`Coupler`, which only appends to lists; nothing is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from graphprune import labels as lab
from graphprune.edits import Edit, Kept
from graphprune.errors import ModelError
from graphprune.graph import Graph, Node, Value
from graphprune.labels import Labels
from graphprune.reasons import Reason
from graphprune.records import Balance, Frozen, Gate, Mixing, Product, Slice, Work

Rewrite = Callable[[Kept], Sequence[Edit]]

MOST_LABELS = 1 << 24
"""A few bytes of a damaged file can ask for any number, and each costs some 200 bytes; ResNet-20 has 4,794."""

_PASSES = ("Identity", "Cast", "DequantizeLinear", "QuantizeLinear")


@dataclass(eq=False)
class Coupler:
    """The label space of one run over a graph."""

    graph: Graph
    keep_axis: str = "heads"
    """Where labels vary over two axes, what goes: ``heads`` (positions of the outer axis), ``width``
    (of the inner one), or ``both`` (an element goes when either of its positions does)."""
    settled: frozenset[str] = frozenset()
    """Values that must vary along one axis only, found by an earlier run."""
    labels: dict[Value, Labels | None] = field(default_factory=dict)
    count: int = 1
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    born: list[tuple[np.ndarray, Node]] = field(default_factory=list)
    contracted: list[np.ndarray] = field(default_factory=list)
    parts: list[list[np.ndarray]] = field(default_factory=list)
    """Label vectors of stored tensors that are one axis of the tensor they are joined to."""
    frozen: list[Frozen] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    position_ties: list[Balance] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    mixings: list[Mixing] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    rewrites: list[tuple[Node, Rewrite]] = field(default_factory=list)
    _stored: dict[Value, Labels] = field(default_factory=dict)
    _grids: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    _joined: dict[bytes, np.ndarray] = field(default_factory=dict)
    _row_slices: dict[tuple[Value, int], Slice] = field(default_factory=dict)

    # -- labels ---------------------------------------------------------------------------------

    def fresh(self, n: int) -> np.ndarray:
        """``n`` new labels. They can go only if a rule declares them channels (see ``channels``).

        Raises ModelError beyond MOST_LABELS.
        """
        if self.count + n > MOST_LABELS:
            raise ModelError(
                f"the model has more than {MOST_LABELS} positions along its tensors' axes to follow: it is damaged, or "
                "needs smaller sizes (--input-shape)"
            )
        ids = np.arange(self.count, self.count + n)
        self.count += n
        return ids

    def stored(self, value: Value) -> Labels:
        """Labels of a stored tensor: fresh ones on every axis, allotted once per (tensor, axis)."""
        if value not in self._stored:
            assert value.shape is not None
            vectors: dict[int, np.ndarray | None] = {}
            for axis, size in enumerate(value.shape):
                if size > 1:
                    ids = self.fresh(size)
                    vectors[axis] = ids
                    self.slices.append(Slice(value, axis, ids))
            self._stored[value] = Labels.vectors(value.shape, vectors)
        return self._stored[value]

    def channels(self, ids: np.ndarray | None, node: Node) -> None:
        """Declare ``ids`` output channels of ``node``: removable unless something freezes them."""
        if ids is not None:
            self.born.append((ids, node))

    def tie(self, a: np.ndarray, b: np.ndarray | int) -> None:
        """What ``a`` loses, ``b`` loses (arrays broadcast against each other)."""
        left, right = np.broadcast_arrays(a, b)
        self.pairs.append((left.reshape(-1), right.reshape(-1)))

    def tie_vectors(
        self, a: np.ndarray | None, b: np.ndarray | None, node: Node, reason: Reason = Reason.FIXED_OPERAND
    ) -> np.ndarray | None:
        """Tie two axes of equal size; a tracked axis that meets an untracked one is frozen."""
        if a is None or b is None:
            for ids in (a, b):
                if ids is not None:
                    self.freeze(ids, reason, node)
            return None
        self.tie(a, b)
        return a

    # -- freezing ---------------------------------------------------------------------------------

    def freeze(self, ids: np.ndarray, reason: Reason, node: Node | None) -> None:
        """These labels stay, because of ``node``."""
        self.frozen.append(Frozen(np.reshape(ids, -1), reason, node))

    def freeze_all(self, x: Labels | None, reason: Reason, node: Node | None) -> None:
        """Every label of a tensor stays."""
        for term in x.terms if x is not None else ():
            self.freeze(term, reason, node)

    def freeze_axes(self, x: Labels, axes: Sequence[int], reason: Reason, node: Node) -> Labels:
        """Labels that vary along ``axes`` stay; returns ``x`` with those axes untracked."""
        gone = [t for t in x.terms if set(x.axes_of(t)) & set(axes)]
        for term in gone:
            self.freeze(term, reason, node)
        return x.without(gone)

    def only(self, x: Labels, axis: int, node: Node, reason: Reason = Reason.SPACE) -> np.ndarray | None:
        """Labels along ``axis`` ``[size]``; those of every other axis are frozen."""
        x = self.freeze_axes(x, [a for a in range(x.rank) if a != axis], reason, node)
        return lab.vector(x, axis)

    def mixes(self, node: Node, x: Labels, axes: Sequence[int]) -> Labels:
        """``node`` computes a statistic over ``axes``: exact only while none of them is cut.

        Returns ``x`` unchanged; labels that vary along the axes are frozen without --allow-inexact.
        """
        for axis in axes:
            ids = lab.vector(x, axis)
            if ids is not None:
                self.frozen.append(Frozen(ids, Reason.CROSS_CHANNEL, node, exact_only=True))
                self.mixings.append(Mixing(node, axis, ids))
        return x

    # -- two axes ---------------------------------------------------------------------------------

    def settle(self, x: Labels, node: Node | None = None, avoid: Sequence[int] = ()) -> Labels:
        """Make every term vary along one axis only, by tying it along the others.

        Labels stay on the outermost axis (``heads``) or the innermost (``width``) that is not in
        ``avoid``; with ``both``, each of two axes gets labels of its own.
        """
        terms: list[np.ndarray] = []
        for term in x.terms:
            axes = x.axes_of(term)
            free = [a for a in axes if a not in avoid] or list(axes)
            keep = {"heads": free[:1], "width": free[-1:], "both": free[-2:]}[self.keep_axis]
            dims = {d for a in axes if a not in keep for d in x.dims(a)}
            if dims:
                first = term[tuple(slice(0, 1) if d in dims else slice(None) for d in range(term.ndim))]
                self.tie(term, first)
                term = first
            terms += self._factored(x, term, keep) if len(keep) == 2 else [term]
        return self._one_per_axis(Labels(x.factors, tuple(terms)), node)

    def _factored(self, x: Labels, term: np.ndarray, axes: Sequence[int]) -> list[np.ndarray]:
        """Labels for the two axes of a grid; the same grid always gets the same ones."""
        rows, columns = (tuple(t if d in x.dims(a) else 1 for d, t in enumerate(term.shape)) for a in axes)
        grid = term.reshape(math.prod(rows), math.prod(columns))
        turned = abs(int(grid[1, 0]) - int(grid[0, 0])) < abs(int(grid[0, 1]) - int(grid[0, 0]))
        upright = np.ascontiguousarray(grid.T if turned else grid)
        key = upright.tobytes()
        if key not in self._grids:
            outer, inner = self.fresh(upright.shape[0]), self.fresh(upright.shape[1])
            self._grids[key] = outer, inner
            self.products.append(
                Product(upright, *(np.array(a) for a in np.broadcast_arrays(outer[:, None], inner)))
            )
        outer, inner = self._grids[key]
        first, second = (inner, outer) if turned else (outer, inner)
        return [first.reshape(rows), second.reshape(columns)]

    def _one_per_axis(self, x: Labels, node: Node | None) -> Labels:
        """Where several terms share an axis (c h w merged to one) the outermost is kept.

        With ``both``, two of them become one term of a grid.
        """
        for axis in range(x.rank):
            found = x.on(axis)
            if len(found) > 1:
                dims = x.dims(axis)
                order = sorted(found, key=lambda t: next(d for d in dims if t.shape[d] > 1))
                if self.keep_axis == "both" and len(order) == 2:
                    outer, inner = (np.array(a) for a in np.broadcast_arrays(*order))
                    key = outer.tobytes() + inner.tobytes()
                    if key not in self._joined:
                        ids = self.fresh(outer.size).reshape(outer.shape)
                        self.products.append(Product(ids, outer, inner))
                        self._joined[key] = ids
                    rest = x.without(order)
                    x = Labels(rest.factors, (*rest.terms, self._joined[key]))
                    continue
                for term in order[1:]:
                    self.freeze(term, Reason.REARRANGED, node)
                x = x.without(order[1:])
        return x

    # -- several operands -------------------------------------------------------------------------

    def broadcast(
        self, node: Node, operands: Sequence[Labels], reason: Reason = Reason.FIXED_OPERAND
    ) -> Labels:
        """Labels of an elementwise operator: operands' labels broadcast and tie.

        Operands must be settled. An axis that is tracked in one operand and full but untracked in
        another is frozen.
        """
        operands = lab.aligned(operands)
        factors = tuple(max((x.factors[a] for x in operands), key=math.prod) for a in range(operands[0].rank))
        terms: list[np.ndarray] = []
        for axis, factor in enumerate(factors):
            if math.prod(factor) == 1:
                continue
            full = [x for x in operands if x.factors[axis] == factor]
            found = [x.on(axis) for x in full]
            if not any(found):
                continue
            tracked = [t for ts in found for t in ts]
            if not all(found):
                for term in tracked:
                    self.freeze(term, reason, node)
                continue
            # the term that varies over the fewest factors stands for all
            tracked.sort(key=lambda t: t.size)
            for other in tracked[1:]:
                self.tie(tracked[0], other)
            terms.append(tracked[0])
        return Labels(factors, tuple(terms))

    def contract(
        self,
        node: Node,
        operands: Sequence[tuple[Value, Labels, str]],
        out: str,
        coefficient: float = 1.0,
    ) -> Labels:
        """Labels of a generalised matrix product, written as an einsum (one letter per axis).

        A letter shared by operands ties them. One that is summed must have its consumer side zeroed in
        the masked model: the weight where there is one, else an operand is gated. A letter of the
        output that only a weight has is a new channel axis.
        """
        sizes: dict[str, int] = {}
        vectors: dict[str, list[tuple[Value, Labels, int, np.ndarray | None]]] = {}
        for value, x, letters in operands:
            for axis, letter in enumerate(letters):
                size = x.shape[axis]
                sizes[letter] = max(size, sizes.get(letter, 1))
                vectors.setdefault(letter, []).append((value, x, axis, lab.vector(x, axis)))
        chosen: dict[str, np.ndarray | None] = {}
        for letter, entries in vectors.items():
            full = [e for e in entries if e[1].shape[e[2]] == sizes[letter]]
            chosen[letter] = self._contract_letter(node, full, letter in out)
        tracked = [c for c in chosen.values() if c is not None]
        untracked = math.prod(sizes[k] for k, c in chosen.items() if c is None)
        self.works.append(Work(node, coefficient * untracked, tuple(tracked)))
        return Labels.vectors(
            [sizes[k] for k in out], {axis: chosen[letter] for axis, letter in enumerate(out)}
        )

    def _contract_letter(
        self, node: Node, entries: list[tuple[Value, Labels, int, np.ndarray | None]], survives: bool
    ) -> np.ndarray | None:
        ids = entries[0][3]
        for _, _, _, other in entries[1:]:
            ids = self.tie_vectors(ids, other, node)
        if ids is None:
            return None
        weights = [e for e in entries if e[0].constant]
        if survives:
            if len(weights) == len(entries):
                self.channels(ids, node)
        elif weights:
            for entry in weights:
                assert entry[3] is not None
                self.contracted.append(entry[3])
        else:
            value, _, axis, _ = entries[0]
            self.gates.append(Gate(value, axis, ids))
        return ids

    def balance(self, kind: str, node: Node, ids: np.ndarray | None) -> None:
        """Every row of ``ids`` ``[rows, n]`` must lose equally many positions."""
        if ids is not None and ids.shape[0] > 1:
            self.balances.append(Balance(kind, node, ids))

    def tie_positions(self, node: Node, ids: np.ndarray) -> None:
        """Every row of ``ids`` ``[rows, n]`` loses the same positions: a last resort, which the report names."""
        self.tie(ids, ids[:1])
        self.position_ties.append(Balance("position_tie", node, ids))

    def row_slice(self, tensor: Value, axis: int, ids: np.ndarray, node: Node) -> bool:
        """Axis ``axis`` of ``tensor`` loses other indices in each block of axis 0; ids ``[rows, n]``.

        A tensor used twice has its two uses tied. Returns False where the two uses disagree.
        """
        key = (tensor, axis)
        known = self._row_slices.get(key)
        if known is None:
            known = Slice(tensor, axis, ids, rows=ids.shape[0])
            self._row_slices[key] = known
            self.slices = [s for s in self.slices if (s.tensor, s.axis) != key] + [known]
            plain = lab.vector(self.stored(tensor), axis)
            if plain is not None and not _read_once(tensor):
                self.tie(ids, plain)  # another reader knows the axis by these
            return True
        if known.rows != ids.shape[0]:
            self.freeze(known.ids, Reason.SHARED_LAYOUT, node)
            self.freeze(ids, Reason.SHARED_LAYOUT, node)
            return False
        self.tie(known.ids, ids)
        return True

    def on_prune(self, node: Node, rewrite: Rewrite) -> None:
        """Register what must change in ``node`` itself once it is known which labels stay."""
        self.rewrites.append((node, rewrite))

    @cached_property
    def summed(self) -> np.ndarray:
        """bool ``[labels]``: stored tensors are summed over along these (read once the run is over).

        Where a weight is stored flat, or in two axes that its reader sees as one, what is summed over is a
        factor or the product of a grid, and the stored labels are the other side of it.
        """
        found = np.zeros(self.count, bool)
        for ids in self.contracted:
            found[ids] = True
        self._spread_to_parts(found)
        direct = found.copy()
        for p in self.products:
            found[p.ids[direct[p.outer] | direct[p.inner]]] = True
            found[p.outer[direct[p.ids]]] = found[p.inner[direct[p.ids]]] = True
        self._spread_to_parts(found)
        return found

    def _spread_to_parts(self, found: np.ndarray) -> None:
        """What is summed over in the joined tensor is summed over in every part (the last joined first)."""
        for vectors in reversed(self.parts):
            summed = np.logical_or.reduce([found[ids] for ids in vectors])
            for ids in vectors:
                found[ids] |= summed

    @cached_property
    def sliced_by_rows(self) -> frozenset[Value]:
        """Stored tensors whose blocks lose different indices (read once the run is over)."""
        return frozenset(s.tensor for s in self.slices if s.rows > 1)

    def storage(self, value: Value) -> Value | None:
        """The stored tensor behind elementwise one-operand operators (Identity, Cast, Dequantize...)."""
        while not value.stored:
            node = value.producer
            if node is None or not node.inputs or node.inputs[0] is None:
                return None
            if node.op not in _PASSES:
                return None
            value = node.inputs[0]
        return value


def _read_once(value: Value) -> bool:
    """Whether one node alone reads a stored tensor, seen through operators of one operand."""
    while len(value.consumers) == 1 and value.consumers[0].op in _PASSES:
        value = value.consumers[0].outputs[0]
    return len(value.consumers) == 1
