"""Parameters and MACs of the model under a decision, without building it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphprune.coupling import Coupling
from graphprune.graph import Node, Value
from graphprune.groups import counts_as_parameters


class CostModel:
    """Counts for any ``alive`` (bool ``[components]``); exact, because sizes are products of counts.

    Parameters are the elements of stored floating-point and quantised tensors. MACs are the
    multiply-accumulates of contractions (convolutions, matrix products, recurrences, attention) at the
    analysed input shapes; other operators count 0.
    """

    def __init__(self, coupling: Coupling) -> None:
        c = coupling.coupler
        self.tensors: list[Value] = [v for v in coupling.graph.stored() if counts_as_parameters(v)]
        index = {t: i for i, t in enumerate(self.tensors)}
        slices = [s for s in c.slices if s.tensor in index]
        self._sizes = np.array([t.size for t in self.tensors], np.float64)
        self._share = _Products(
            [coupling.of(s.ids).reshape(-1) for s in slices],
            [index[s.tensor] for s in slices],
            len(self.tensors),
            relative=True,
        )
        self.works = c.works
        vectors = [(i, v) for i, w in enumerate(self.works) for v in w.vectors]
        self._coefficients = np.array([w.coefficient for w in self.works], np.float64)
        self._counts = _Products(
            [coupling.of(v) for _, v in vectors], [i for i, _ in vectors], len(self.works), relative=False
        )
        everything = np.ones(coupling.count, bool)
        self.total_params = self.params(everything)
        self.total_macs = self.macs(everything)

    def tensor_params(self, alive: np.ndarray) -> np.ndarray:
        """Elements of every tensor in ``self.tensors``."""
        params: np.ndarray = np.rint(self._sizes * self._share(alive))
        return params

    def params(self, alive: np.ndarray) -> int:
        """Parameters that stay."""
        return int(self.tensor_params(alive).sum())

    def work_macs(self, alive: np.ndarray) -> np.ndarray:
        """MACs of every entry of ``self.works``."""
        macs: np.ndarray = self._coefficients * self._counts(alive)
        return macs

    def macs(self, alive: np.ndarray) -> int:
        """MACs that stay."""
        return round(float(self.work_macs(alive).sum()))

    def soft_params(self, keep: np.ndarray) -> tuple[float, np.ndarray]:
        """Parameters under soft masks ``keep`` (float64 ``[components]`` in [0, 1]) and their gradient."""
        shares, slopes = self._share.with_slopes(keep)
        return float(self._sizes @ shares), slopes(self._sizes)

    def soft_macs(self, keep: np.ndarray) -> tuple[float, np.ndarray]:
        """MACs under soft masks ``keep`` (float64 ``[components]`` in [0, 1]) and their gradient."""
        counts, slopes = self._counts.with_slopes(keep)
        return float(self._coefficients @ counts), slopes(self._coefficients)

    def macs_by_node(self, alive: np.ndarray) -> dict[Node, int]:
        """MACs of every node that has any."""
        found: dict[Node, float] = {}
        for work, macs in zip(self.works, self.work_macs(alive), strict=True):
            found[work.node] = found.get(work.node, 0.0) + float(macs)
        return {node: round(macs) for node, macs in found.items()}

    def params_by_node(self, alive: np.ndarray) -> dict[Node, int]:
        """Parameters that stay, of every node that has any: a tensor counts at the first node that reads it."""
        found: dict[Node, int] = {}
        for tensor, params in zip(self.tensors, self.tensor_params(alive).tolist(), strict=True):
            node = first_reader(tensor)
            if node is not None:
                found[node] = found.get(node, 0) + int(params)
        return found


def first_reader(value: Value) -> Node | None:
    """The first operator that reads a stored tensor, behind those that only compute constants of it."""
    node = min(value.consumers, key=lambda n: n.index, default=None)
    while node is not None and node.outputs and node.outputs[0].constant:
        node = min(node.outputs[0].consumers, key=lambda n: n.index, default=None)
    return node


class _Products:
    """For each of ``n`` items, the product over its vectors of the kept count (or kept share)."""

    def __init__(self, vectors: Sequence[np.ndarray], item: Sequence[int], n: int, relative: bool) -> None:
        sizes = np.array([v.size for v in vectors], np.int64)
        self._flat = np.concatenate(vectors) if vectors else np.zeros(0, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if vectors else np.zeros(0, np.int64)
        self._scale = 1.0 / sizes if relative else np.ones(len(vectors))
        self._item = np.array(item, np.int64)
        self._n = n

    def __call__(self, alive: np.ndarray) -> np.ndarray:
        product = np.ones(self._n)
        if self._starts.size:
            counts = np.add.reduceat(alive[self._flat].astype(np.int64), self._starts)
            np.multiply.at(product, self._item, counts * self._scale)
        return product

    def with_slopes(self, keep: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """The products for a float ``keep``, and what turns their weights into the gradient of their sum."""
        product = np.ones(self._n)
        if not self._starts.size:
            return product, lambda weights: np.zeros_like(keep)
        sums = np.add.reduceat(keep[self._flat], self._starts) * self._scale
        np.multiply.at(product, self._item, sums)
        share = product[self._item] / np.maximum(sums, np.finfo(float).tiny) * self._scale
        lengths = np.diff(self._starts, append=self._flat.size)

        def slopes(weights: np.ndarray) -> np.ndarray:
            each = np.repeat(share * weights[self._item], lengths)
            found: np.ndarray = np.bincount(self._flat, each, minlength=keep.size)
            return found

        return product, slopes
