"""Every rule against brute force (see brute_force): what the labels let go can go, and takes with it what they say.

Soundness is required of every row of tests.test_rules and every coupled channel that touches its operators. Three forms
of the cut body are tried, from the least to the most that the package had a hand in: integers untouched, any set of
integers lowered by the number of removed channels, and the body out of the pruned model (sizes and attributes that
only surgery knows: head counts, per-group positions). Weights lose what the labels of their axes say.

Completeness is counted: a channel that stays although brute force finds a way to remove it is in KNOWN, or the test
fails. That list must not grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from graphprune import labels as lab
from graphprune.coupling import Coupling, couple
from graphprune.edits import Kept
from graphprune.frontends.loading import load_model
from graphprune.frontends.onnx import build_graph
from graphprune.rules import all_rules, registry
from graphprune.surgery import apply
from graphprune.writing import to_proto
from tests.fuzz import brute_force as hand
from tests.test_random_graphs import prune
from tests.test_rules import ROWS, Row, identifier, late_rows

NAMED = {f"{i}-{identifier(row)}": row for i, row in enumerate(ROWS) if row.op or "custom" not in row.body}
HANDED = {name: row for name, row in NAMED.items() if hand.draws(hand.body_of(row.model()), not row.tokens)}


def key(row: Row) -> str:
    """Operator, axes and sizes, body."""
    given = [w.tolist() for w in row.weights.values() if isinstance(w, np.ndarray) and w.dtype == np.int64]
    numbers = f" {given[0]}" if given else ""
    return " ".join(f"{row.op}{numbers}: {row.body}".split())


_ALL = [0, 1, 2, 3]
KNOWN: dict[str, list[int]] = {
    # sums and norms over the channels: the reference could gate their input, but takes them over what is kept
    "ReduceSum [1]: c = ReduceSum<keepdims=1>(a, axes)": _ALL,
    "ReduceL1 [1]: c = ReduceL1<keepdims=1>(a, axes)": _ALL,
    "ReduceL2 [1]: c = ReduceL2<keepdims=1>(a, axes)": _ALL,
    "ReduceLogSum [1]: c = ReduceLogSum<keepdims=1>(a, axes)": _ALL,
    "ReduceSumSquare [1]: c = ReduceSumSquare<keepdims=1>(a, axes)": _ALL,
    # the range is taken over all channels: what does not hold an end of it could go, on the inputs that were drawn
    "ConvInteger: q, s, z = DynamicQuantizeLinear(a) d = ConvInteger(q, W, z) c = Cast<to=1>(d)": _ALL,
    "MatMulInteger: q, s, z = DynamicQuantizeLinear(a) d = MatMulInteger(q, W, z) c = Cast<to=1>(d)": _ALL,
    "DynamicQuantizeLinear: q, s, z = DynamicQuantizeLinear(a) c = DequantizeLinear(q, s, z)": [2],
    # an output of one position could become one of none
    "Split [1, 3]: p, q = Split<axis=1>(a, i) c = Concat<axis=1>(q, p)": [0],
    # the index that is computed at run time happens to be 0
    "Gather 0: n = Shape(a) i = Gather<axis=0>(n, j) m = ReduceMax<keepdims=0>(a) t = Cast<to=7>(m) "
    "h = Mul(t, z) u = Unsqueeze(h, v) c = Gather<axis=1>(a, u)": [1, 2, 3],
    # a mirrored channel could go with its image where the amounts are lowered on that side
    'Pad [0, 1, 0, 0, 0, 1, 0, 0]: c = Pad<mode="reflect">(a, i)': _ALL,
    # nobody reads the last position but itself
    "CumSum 1: c = CumSum(a, k)": [3],
    # sizes computed at run time: brute force lowers the numbers that they are computed from
    **{key(row): _ALL for row in late_rows() if row.op != "Split"},
}
"""Row -> channels of ``a`` that stay, or go only with others, although brute force removes each alone."""


def read(row: Row) -> tuple[ir.Model, Coupling]:
    model = load_model(row.model())[0]
    return model, couple(build_graph(model))


def decisions(coupling: Coupling, row: Row) -> Iterator[np.ndarray]:
    """Every removable coupled channel alone where nothing balances it; else a few sets that a budget chose."""
    bound = [coupling.of(b.ids) for b in coupling.coupler.balances]
    together = np.unique(np.concatenate([np.zeros(0, int), *(b.reshape(-1) for b in bound)]))
    for channel in np.flatnonzero(coupling.removable).tolist():
        if channel not in together:
            alive = np.ones(coupling.count, bool)
            alive[channel] = False
            yield alive
    if together.size:
        for seed in range(4):
            yield prune(row.model(), seed).alive


def masks(kept: Kept, x: lab.Labels | None, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Which positions stay, along every axis."""
    if x is None:
        return [np.ones(s, bool) for s in shape]
    return [kept.axis_mask(x, a) for a in range(x.rank)]


def weights_gone(coupling: Coupling, kept: Kept, names: set[str]) -> dict[str, dict[int, list[int]]] | None:
    """What every stored tensor loses; None where it loses other positions in each block."""
    gone: dict[str, dict[int, list[int]]] = {}
    for s in coupling.coupler.slices:
        if kept.changed(s.ids) and s.tensor.name in names:
            if s.rows > 1:
                return None
            gone.setdefault(s.tensor.name, {})[s.axis] = np.flatnonzero(~kept.mask(s.ids)).tolist()
    return gone


def zeroed_weights(body: onnx.ModelProto, coupling: Coupling, kept: Kept) -> onnx.ModelProto:
    """The whole body with zeros along the axes that it sums over."""
    copy = onnx.ModelProto()
    copy.CopyFrom(body)
    summed = np.unique(
        np.concatenate([np.zeros(0, int), *(c.reshape(-1) for c in coupling.coupler.contracted)])
    )
    for tensor in copy.graph.initializer:
        array = np.array(numpy_helper.to_array(tensor))
        for s in coupling.coupler.slices:
            if s.tensor.name != tensor.name or not np.isin(s.ids, summed).all():
                continue
            blocks = np.split(array, s.rows)
            for block, ids in zip(blocks, s.ids.reshape(s.rows, -1), strict=True):
                np.moveaxis(block, s.axis, 0)[~kept.mask(ids)] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def forms(
    body: onnx.ModelProto, model: ir.Model, coupling: Coupling, alive: np.ndarray, lost: int
) -> Iterator[onnx.ModelProto]:
    """Cut bodies; see the module's docstring."""
    gone = weights_gone(coupling, coupling.kept(alive), {t.name for t in body.graph.initializer})
    if gone is not None:
        yield from hand.with_integers(hand.cut_weights(body, gone), max(lost, 1))
    yield hand.body_of(to_proto(apply(model, coupling, alive).model))


def whole_results(
    body: onnx.ModelProto, zeroed: onnx.ModelProto, feeds: hand.Arrays, axes: list[np.ndarray]
) -> list[np.ndarray]:
    """What the uncut body gives: as it is, and with zeros where it sums over what goes."""
    kept = np.zeros_like(feeds["a"])
    kept[np.ix_(*axes)] = 1
    masked = feeds | {"a": feeds["a"] * kept}
    found = [hand.run(b, f) for b in (body, zeroed) for f in (feeds, masked)]
    return [c for c in found if c is not None]


@pytest.mark.parametrize("name", HANDED)
def test_what_may_go_goes_as_the_labels_say(name: str) -> None:
    assert unsound(HANDED[name]) is None


def unsound(row: Row) -> np.ndarray | None:
    """The first set of coupled channels that does not go as the labels say, or None."""
    model, coupling = read(row)
    body = hand.body_of(row.model())
    feeds = hand.draws(body, not row.tokens)
    a, c = (coupling.graph.values[n] for n in ("a", "c"))
    for alive in decisions(coupling, row):
        kept = coupling.kept(alive)
        axes = masks(kept, coupling.labels[a], a.shape or ())
        left = masks(kept, coupling.labels[c], c.shape or ())
        if any(not m.any() for m in (*axes, *left)):
            continue  # nothing may be emptied
        zeroed = zeroed_weights(body, coupling, kept)
        cut = [(f | {"a": f["a"][np.ix_(*axes)]}, whole_results(body, zeroed, f, axes)) for f in feeds]
        lost = sum(int((~m).sum()) for m in axes)
        if not any(
            all(any(hand.same(hand.run(form, f), w[np.ix_(*left)]) for w in whole) for f, whole in cut)
            for form in forms(body, model, coupling, alive, lost)
        ):
            return np.flatnonzero(~alive)
    return None


@pytest.mark.parametrize("operator", ["Relu", "Concat", "Split", "Gather"])
def test_a_wrong_rule_is_seen(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its labels are moved by one position along the channels."""
    right = all_rules()[operator]

    def wrong(*arguments: object) -> list[lab.Labels]:
        found = right.function(*arguments)
        outputs = [found] if isinstance(found, lab.Labels) else found
        return [lab.take(x, 1, np.roll(np.arange(x.shape[1]), 1)) for x in outputs]

    monkeypatch.setitem(registry._RULES, operator, replace(right, function=wrong))
    rows = [row for row in HANDED.values() if row.op == operator and row.expected]
    assert any(unsound(row) is not None for row in rows)


@pytest.mark.parametrize("name", HANDED)
def test_what_stays_must_stay(name: str) -> None:
    row = HANDED[name]
    coupling = read(row)[1]
    a, axis = coupling.graph.values["a"], 2 if row.tokens else 1
    labels = coupling.labels[a]
    ids = None if labels is None else lab.vector(labels, axis)
    assert ids is not None
    channels = coupling.of(ids)
    body = hand.body_of(row.model())
    feeds = hand.draws(body, not row.tokens)
    alone = [int(np.count_nonzero(channels == k)) == 1 and bool(coupling.removable[k]) for k in channels]
    missed = [i for i, free in enumerate(alone) if not free and hand.removable(body, feeds, axis, i)]
    assert missed == KNOWN.get(key(row), [])
