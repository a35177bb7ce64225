"""Models that compute with sizes that they leave open: what is pruned must hold at every one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from graphprune import api
from graphprune.feeds import specs_at_other_sizes
from graphprune.frontends.loading import load_model
from graphprune.frontends.onnx import build_graph
from graphprune.open_sizes import other_batch, other_sizes
from graphprune.plan import Plan
from graphprune.proof import verify_models
from graphprune.sampling import sample_sizes
from tests import oracle
from tests.random_graphs import Builder, Recipe, build
from tests.test_random_graphs import check_keep_all, prune

TO_THE_END = 2**63 - 1
SCALE = 0.5
CHANNELS = 8
TOKENS = 6
HEADS = 4
SIZES = (1, 2, 5)
"""Of every open axis."""

Network = Callable[["Net"], str]
NETWORKS: dict[str, tuple[Network, list[int | str], set[str]]] = {}
"""Name -> (what makes the output, the input's axes after the batch, stored tensors that must lose channels)."""


class Net(Builder):
    """A network that is written out; ``x`` is its input."""

    x = "x"

    def __init__(self) -> None:
        super().__init__(Recipe(()))
        self.named: dict[str, np.ndarray] = {}

    def stored(self, name: str, *shape: int) -> str:
        """A random tensor under a name of its own."""
        self.tensors.append(onnx.numpy_helper.from_array(self.random(*shape), name))
        return name

    def sizes(self, *parts: str | int) -> str:
        """A vector of sizes: numbers, and vectors of one."""
        return self.op("Concat", *(self.ints(p) if isinstance(p, int) else p for p in parts), axis=0)

    def number(self, x: str, axis: int) -> str:
        """One size of ``x`` as a scalar."""
        return self.op("Gather", self.op("Shape", x), self.tensor(np.array(axis, np.int64)), axis=0)

    def dense(self, x: str, width: int, out: int, name: str = "") -> str:
        """``x @ w``; ``w`` is called ``name``."""
        return self.op("MatMul", x, self.stored(name or self.name("w"), width, out))


def network(*axes: int | str, loses: str = "") -> Callable[[Network], Network]:
    """Register a network with an input of ``[N, *axes]``; the stored tensors in ``loses`` must lose channels."""

    def register(function: Network) -> Network:
        NETWORKS[function.__name__] = (function, list(axes), set(loses.split()))
        return function

    return register


def model_of(name: str, batch: int | str = "N") -> onnx.ModelProto:
    """The network in a file."""
    function, axes, _ = NETWORKS[name]
    net = Net()
    out = function(net)
    graph = helper.make_graph(
        net.nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *axes])],
        [helper.make_empty_tensor_value_info(out)],
        net.tensors,
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model


# -- constants that follow the batch --------------------------------------------------------------------


@network(TOKENS, CHANNELS, loses="token")
def class_token(b: Net) -> str:
    """A token, expanded and then scaled, before the others."""
    y = b.dense(b.x, CHANNELS, CHANNELS)
    first = b.op("Expand", b.stored("token", 1, 1, CHANNELS), b.sizes(b.batch_of(b.x), 1, CHANNELS))
    y = b.op("Concat", b.op("Mul", first, b.scalar(SCALE)), y, axis=1)
    return b.dense(b.op("Relu", y), CHANNELS, 3)


@network(TOKENS, CHANNELS, loses="token")
def tiled_token(b: Net) -> str:
    y = b.dense(b.x, CHANNELS, CHANNELS)
    first = b.op("Tile", b.stored("token", 1, 1, CHANNELS), b.sizes(b.batch_of(b.x), 1, 1))
    y = b.op("Concat", b.op("Sub", first, b.scalar(SCALE)), y, axis=1)
    return b.dense(b.op("Relu", y), CHANNELS, 3)


@network(TOKENS, HEADS * 2, loses="bias")
def attention_bias(b: Net) -> str:
    """A bias per head, repeated for every sample and masked, in windows (Swin)."""
    width = HEADS * 2
    heads = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        y = b.op("Reshape", b.dense(b.x, width, width), b.sizes(b.batch_of(b.x), TOKENS, HEADS, 2))
        heads.append(b.op("Transpose", y, perm=perm))
    scores = b.op("MatMul", heads[0], heads[1])
    target = b.sizes(b.batch_of(b.x), HEADS, TOKENS, TOKENS)
    bias = b.op("Expand", b.stored("bias", HEADS, TOKENS, TOKENS), target)
    mask = b.op("Mul", b.tensor(b.random(TOKENS, TOKENS)), b.stored("mask_scale", HEADS, 1, 1))
    scores = b.op("Add", scores, b.op("Add", bias, mask))
    y = b.op("MatMul", b.op("Softmax", scores, axis=-1), heads[2])
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.sizes(b.batch_of(b.x), TOKENS, width))
    return b.dense(y, width, 3)


@network(TOKENS, CHANNELS, loses="scale")
def filled(b: Net) -> str:
    """ConstantOfShape by the batch, times a stored vector, joined."""
    y = b.dense(b.x, CHANNELS, CHANNELS)
    ones = b.op(
        "ConstantOfShape",
        b.sizes(b.batch_of(b.x), 1, CHANNELS),
        value=helper.make_tensor("value", TensorProto.FLOAT, [1], [0.25]),
    )
    ones = b.op("Mul", ones, b.stored("scale", CHANNELS))
    return b.dense(b.op("Concat", ones, y, axis=1), CHANNELS, 3)


@network(TOKENS, CHANNELS, loses="step")
def numbered(b: Net) -> str:
    """The number of a sample, times a stored vector: other numbers, not another shape, at another size."""
    y = b.dense(b.x, CHANNELS, CHANNELS)
    zero, one = (b.tensor(np.array(i, np.int64)) for i in (0, 1))
    count = b.op("Cast", b.op("Range", zero, b.number(b.x, 0), one), to=TensorProto.FLOAT)
    y = b.op("Add", y, b.op("Mul", b.unsqueeze(count, 1, 2), b.stored("step", CHANNELS)))
    return b.dense(b.op("Relu", y), CHANNELS, 3)


@network(TOKENS, CHANNELS, loses="step")
def divided_by_the_batch(b: Net) -> str:
    """The shape of the constant does not tell that it depends on the batch."""
    y = b.dense(b.x, CHANNELS, CHANNELS)
    count = b.op("Cast", b.number(b.x, 0), to=TensorProto.FLOAT)
    y = b.op("Add", y, b.op("Div", b.stored("step", CHANNELS), count))
    return b.dense(b.op("Relu", y), CHANNELS, 3)


@network(TOKENS, CHANNELS, loses="state")
def initial_state(b: Net) -> str:
    """A stored state, repeated for every sample, of a recurrence."""
    gates = [b.stored(n, 1, 3 * CHANNELS, CHANNELS) for n in ("w", "r")]
    target = b.sizes(1, b.batch_of(b.x), CHANNELS)
    state = b.op(
        "Tanh", b.op("Mul", b.op("Expand", b.stored("state", 1, 1, CHANNELS), target), b.scalar(SCALE))
    )
    y = b.op(
        "GRU", b.op("Transpose", b.x, perm=[1, 0, 2]), *gates, "", "", state, hidden_size=CHANNELS, n=2
    )  # t d n h
    return b.dense(b.op("Transpose", b.squeeze(y[0], 1), perm=[1, 0, 2]), CHANNELS, 3)


@network(TOKENS, CHANNELS, loses="table")
def contracted(b: Net) -> str:
    """A product with a table that is expanded and shifted: removed positions of the sum are not 0 by themselves."""
    y = b.op("Relu", b.dense(b.x, CHANNELS, CHANNELS))
    table = b.op("Expand", b.stored("table", 1, CHANNELS, 4), b.sizes(b.batch_of(b.x), CHANNELS, 4))
    return b.dense(b.op("MatMul", y, b.op("Add", table, b.scalar(1.0))), 4, 3)


@network(CHANNELS, 8, 8, loses="bias")
def expanded_like(b: Net) -> str:
    """Expand to the shape of a pruned tensor, spelled in full."""
    y = b.op("Conv", b.x, b.tensor(b.random(CHANNELS, CHANNELS, 1, 1)))
    bias = b.op("Expand", b.stored("bias", 1, CHANNELS, 1, 1), b.op("Shape", y))
    y = b.op("Concat", y, b.op("Mul", bias, b.scalar(SCALE)), axis=2)
    return b.op("Conv", b.op("Relu", y), b.tensor(b.random(3, CHANNELS, 1, 1)))


@network(CHANNELS, "H", "W", loses="grid")
def resized_grid(b: Net) -> str:
    """Stored positions, interpolated to the size of the image."""
    y = b.op("Conv", b.x, b.tensor(b.random(CHANNELS, CHANNELS, 1, 1)))
    target = b.sizes(1, CHANNELS, b.size_of(b.x, 2), b.size_of(b.x, 3))
    grid = b.op("Resize", b.stored("grid", 1, CHANNELS, 4, 4), "", "", target, mode="linear")
    return b.op("Conv", b.op("Relu", b.op("Add", y, grid)), b.tensor(b.random(3, CHANNELS, 1, 1)))


@network("T", CHANNELS, loses="positions")
def sliced_positions(b: Net) -> str:
    """As many stored positions as there are tokens, scaled."""
    y = b.dense(b.x, CHANNELS, CHANNELS)
    table = b.stored("positions", 64, CHANNELS)
    table = b.op("Slice", table, b.ints(0), b.size_of(b.x, 1), b.ints(0))
    y = b.op("Add", y, b.op("Mul", table, b.scalar(SCALE)))
    return b.dense(b.op("Relu", y), CHANNELS, 3)


@network("T", CHANNELS, loses="rates")
def sinusoids(b: Net) -> str:
    """Positions by Range, times stored rates."""
    y = b.dense(b.x, CHANNELS, CHANNELS)
    zero, one = (b.tensor(np.array(i, np.int64)) for i in (0, 1))
    steps = b.op("Cast", b.op("Range", zero, b.number(b.x, 1), one), to=TensorProto.FLOAT)
    angles = b.op("Mul", b.unsqueeze(steps, 1), b.stored("rates", 1, CHANNELS))
    return b.dense(b.op("Relu", b.op("Add", y, b.op("Sin", angles))), CHANNELS, 3)


# -- movement --------------------------------------------------------------------------------------------


@network(TOKENS, HEADS * 2)
def heads_in_the_batch(b: Net) -> str:
    """Heads are merged with the batch, and a slice takes all of them, as tracers write ``x[:]``."""
    width = HEADS * 2
    batch = b.batch_of(b.x)
    merged = b.op("Mul", batch, b.ints(HEADS))
    y = b.op("Reshape", b.dense(b.x, width, width), b.sizes(batch, TOKENS, HEADS, 2))
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.sizes(merged, TOKENS, 2))
    y = b.op("Relu", b.slice(y, 0, TO_THE_END, 0))
    y = b.op("Slice", y, b.ints(0, 1), b.ints(TO_THE_END, TOKENS), b.ints(0, 1))
    y = b.op("Reshape", y, b.sizes(batch, HEADS, TOKENS - 1, 2))
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.sizes(batch, TOKENS - 1, width))
    return b.dense(y, width, 3)


@network(CHANNELS, 4, 4)
def group_norm_by_hand(b: Net) -> str:
    """Groups by Reshape to (batch, groups, rest) and back to the shape that Shape tells."""
    y = b.op("Conv", b.x, b.tensor(b.random(CHANNELS, CHANNELS, 1, 1)))
    split = b.op("Reshape", y, b.sizes(b.batch_of(y), 4, -1))
    ones, zeros = (b.tensor(np.full(4, i, np.float32)) for i in (1, 0))
    back = b.op("Reshape", b.op("InstanceNormalization", split, ones, zeros), b.op("Shape", y))
    return b.op("Conv", b.op("Relu", back), b.tensor(b.random(3, CHANNELS, 1, 1)))


@network(CHANNELS, 4, 4)
def shuffled(b: Net) -> str:
    """A channel shuffle whose sizes come from Shape."""
    y = b.op("Conv", b.x, b.tensor(b.random(CHANNELS, CHANNELS // 2, 1, 1)), group=2)
    n, h, w = (b.size_of(y, a) for a in (0, 2, 3))
    half = b.op("Div", b.size_of(y, 1), b.ints(2))
    y = b.op("Transpose", b.op("Reshape", y, b.sizes(n, 2, half, h, w)), perm=[0, 2, 1, 3, 4])
    y = b.op("Reshape", y, b.sizes(n, -1, h, w))
    y = b.op("Conv", y, b.tensor(b.random(CHANNELS, CHANNELS // 2, 1, 1)), group=2)
    return b.op("Conv", b.op("Relu", y), b.tensor(b.random(3, CHANNELS, 1, 1)))


@network(CHANNELS, 4, 4)
def chunked(b: Net) -> str:
    """Halves of the channels by Slice, with bounds from Shape."""
    y = b.op("Conv", b.x, b.tensor(b.random(2 * CHANNELS, CHANNELS, 1, 1)))
    size = b.size_of(y, 1)
    half = b.op("Div", b.op("Add", size, b.ints(1)), b.ints(2))
    first = b.op("Slice", y, b.ints(0), half, b.ints(1))
    second = b.op("Slice", y, half, b.ints(TO_THE_END), b.ints(1))
    y = b.op("Mul", first, b.op("Sigmoid", second))
    return b.op("Conv", y, b.tensor(b.random(3, CHANNELS, 1, 1)))


@network(CHANNELS, "H", "W")
def pixels_as_tokens(b: Net) -> str:
    """A dynamic image flattened to tokens and back, with a mean over width and pixels."""
    y = b.op("Conv", b.x, b.tensor(b.random(CHANNELS, CHANNELS, 1, 1)))
    n, h, w = (b.size_of(b.x, a) for a in (0, 2, 3))
    y = b.op("Transpose", b.op("Reshape", y, b.sizes(n, CHANNELS, b.op("Mul", h, w))), perm=[0, 2, 1])
    y = b.op("Relu", b.dense(y, CHANNELS, CHANNELS))
    count = b.op("Cast", b.op("Mul", b.op("Mul", h, w), b.ints(CHANNELS)), to=TensorProto.FLOAT)
    y = b.op("Div", b.op("Transpose", y, perm=[0, 2, 1]), count)
    y = b.op("Reshape", y, b.sizes(n, CHANNELS, h, w))
    return b.op("Conv", y, b.tensor(b.random(3, CHANNELS, 1, 1)))


# -- stored tensors that are joined -----------------------------------------------------------------------


@network(TOKENS, CHANNELS, loses="w_forward w_backward r_forward r_backward")
def both_directions(b: Net) -> str:
    """A recurrence whose weights are joined from those of the directions."""
    y = b.op("Relu", b.dense(b.x, CHANNELS, CHANNELS))
    w, r = (
        b.op("Concat", *(b.stored(f"{n}_{way}", 1, 4 * 6, size) for way in ("forward", "backward")), axis=0)
        for n, size in (("w", CHANNELS), ("r", 6))
    )
    y = b.op(
        "LSTM", b.op("Transpose", y, perm=[1, 0, 2]), w, r, hidden_size=6, direction="bidirectional", n=3
    )
    y = b.op("Reshape", b.op("Transpose", y[0], perm=[2, 0, 1, 3]), b.sizes(b.batch_of(b.x), TOKENS, 12))
    return b.dense(y, 12, 3)


@network(TOKENS, CHANNELS, loses="q k v")
def packed_weights(b: Net) -> str:
    """One product with three weights, two of them joined first."""
    y = b.op("Relu", b.dense(b.x, CHANNELS, CHANNELS))
    inner = b.op("Concat", *(b.stored(n, CHANNELS, 4) for n in "qk"), axis=1)
    w = b.op("Concat", inner, b.stored("v", CHANNELS, 4), axis=1)
    return b.dense(b.op("MatMul", y, w), 12, 3)


# -- tests --------------------------------------------------------------------------------------------------


def analysed_shape(name: str, batch: int) -> tuple[int, ...]:
    return (batch, *(8 if isinstance(size, str) else size for size in NETWORKS[name][1]))


def pruned(original: onnx.ModelProto, shape: tuple[int, ...] | None = None) -> tuple[onnx.ModelProto, Plan]:
    shapes = None if shape is None else {"x": shape}
    result = api.prune(original, sparsity=0.5, multiple_of=1, allow_inexact=True, input_shapes=shapes)
    return result.model.to_onnx(), result.plan


@pytest.mark.parametrize("analysed", [None, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_equals_masked_at_every_size(name: str, analysed: int | None) -> None:
    original = model_of(name)
    small, plan = pruned(original, None if analysed is None else analysed_shape(name, analysed))
    reference = oracle.masked(original, small, plan.to_dict())
    for size in SIZES:
        assert oracle.difference(reference, small, size) <= oracle.TOLERANCE
    assert NETWORKS[name][2] <= set(plan.removed)


@pytest.mark.parametrize(
    "name", ["class_token", "filled", "numbered", "divided_by_the_batch", "initial_state"]
)
def test_a_model_that_is_right_at_the_analysed_batch_only_is_refused(name: str) -> None:
    small, plan = pruned(model_of(name, 1))
    as_analysed, _ = load_model(small)
    fixed, _ = load_model(model_of(name, 1))
    assert verify_models(fixed, as_analysed, plan).holds
    small.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    wrong, _ = load_model(small)
    original, _ = load_model(model_of(name))
    assert not verify_models(original, wrong, plan).holds
    assert not verify_models(original, wrong, plan, input_shapes={"x": analysed_shape(name, 1)}).holds


def test_the_proof_runs_at_two_sizes() -> None:
    original, _ = load_model(model_of("sinusoids"))
    others, analysed = specs_at_other_sizes(build_graph(original))
    assert [s[0].shape for s in others] == [(2, 24, CHANNELS), (2, 16, CHANNELS)]
    assert analysed[0].shape == (1, 16, CHANNELS)
    asked = []

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        asked.append(feed["x"].shape)
        if feed["x"].shape[1] != 16:
            raise RuntimeError("16 tokens only")
        return feed

    feeds, _ = sample_sizes(run, others, analysed, 3, 0)
    assert [f["x"].shape[0] for f in feeds] == [2, 2, 1]


def test_sizes_of_one_name_change_together() -> None:
    graph = build_graph(ir.from_proto(_two_inputs()))
    assert other_batch(graph) == {"a": (2, 16), "b": (3, 16, 2)}
    assert other_sizes(graph) == {"a": (2, 24), "b": (3, 24, 2)}


def _two_inputs() -> onnx.ModelProto:
    shapes = {"a": ["N", "T"], "b": [3, "T", "N"]}
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["b"], ["t"], perm=[0, 2, 1]),
            helper.make_node("Add", ["a", "t"], ["y"]),
        ],
        "two",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, "N", "T"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_only_data_that_follows_an_open_size_is_not_constant() -> None:
    graphs = {batch: build_graph(ir.from_proto(model_of("attention_bias", batch))) for batch in ("N", 1)}
    varying = {
        v.name for v in graphs["N"].values.values() if graphs[1].values[v.name].constant and not v.constant
    }
    producers = {graphs["N"].values[name].producer.op for name in varying}
    assert producers == {"Expand", "Add"}


def test_nothing_removed_leaves_every_network_as_it_was() -> None:
    for name in NETWORKS:
        check_keep_all(model_of(name))


def test_a_full_slice_keeps_its_open_end() -> None:
    small, _ = pruned(model_of("heads_in_the_batch"))
    ends = {
        int(e)
        for n in small.graph.node
        if n.op_type == "Slice"
        for e in oracle_values(small)[n.input[2]].reshape(-1)
    }
    assert TO_THE_END in ends


def oracle_values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Stored tensors by name."""
    return {name: onnx.numpy_helper.to_array(t) for name, t in oracle.stored(model).items()}


def test_rounding_behind_a_comparison_is_no_difference_at_one_sample() -> None:
    """An output that nearly cancels, behind Where, on the single input of the analysed size."""
    blocks = (("vector_scale", 469), ("depthwise", 416), ("grown_channels", 660), ("windows", 964))
    case = prune(build(Recipe(blocks, seed=200146, opset=11)), 200146)
    original, small = load_model(case.original)[0], load_model(case.pruned)[0]
    assert verify_models(original, small, Plan.from_dict(dict(case.plan))).holds
