"""Every operator of the registry in a tiny model: what it couples, what it freezes, and the proof.

Each row puts an operator between two contractions. Checked are the coupled channels that must come out,
the reason where something stays, and the exactness of removing every channel that may go.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from graphprune.cost import CostModel
from graphprune.coupling import Coupling, couple
from graphprune.frontends.loading import load_model
from graphprune.frontends.onnx import build_graph
from graphprune.groups import find_groups
from graphprune.reasons import Reason
from graphprune.rules import all_rules
from tests import oracle
from tests.test_random_graphs import check_equal, prune

Shape = tuple[int, ...]
IMAGE = "a = Conv(x, A)", "y = Conv(c, B)"
TOKENS = "a = MatMul(x, A)", "y = MatMul(c, B)"


@dataclass(frozen=True)
class Row:
    """``body`` computes ``c`` from ``a`` (1 4 4 4 in an image row, 1 4 4 in a token row).

    expected: prunable channels of every group that has any, sorted. reason: why something stays.
    weights: shapes of random weights; or their values. last: shape of B, the weight that reads ``c``.
    """

    op: str
    body: str
    expected: list[int]
    reason: Reason | None = None
    weights: dict[str, Shape | np.ndarray] = field(default_factory=dict)
    last: Shape | None = None
    tokens: bool = False
    opset: int = 21
    runs: bool = True

    def model(self) -> onnx.ModelProto:
        begin, end = TOKENS if self.tokens else IMAGE
        first, last = ((3, 4), (4, 2)) if self.tokens else ((4, 3, 1, 1), (2, 4, 1, 1))
        shapes = {"A": first, "B": self.last or last, **self.weights}
        x, y = ("1,4,3", "n,t,d") if self.tokens else ("1,3,4,4", "n,c,h,w")
        opsets = f'"": {self.opset}, "com.microsoft": 1, "custom": 1'
        text = f"<ir_version: 8, opset_import: [{opsets}]> g (float[{x}] x) => (float[{y}] y) {{"
        model = onnx.parser.parse_model(f"{text}\n{begin}\n{self.body}\n{end}\n}}")
        rng = np.random.default_rng(0)
        for name, given in shapes.items():
            array = given if isinstance(given, np.ndarray) else rng.standard_normal(given).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        for i, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{i}"
        return model


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def scalar(value: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(value, dtype)


def tokens(op: str, body: str, expected: list[int], reason: Reason | None = None, **more) -> Row:
    return Row(op, body, expected, reason, tokens=True, **more)


def through(kind: int, body: str) -> str:
    """``body`` computes d from p (and q), two casts of ``a`` to another element type."""
    return f"p = Cast<to={kind}>(a)\nq = Cast<to={kind}>(a)\n{body}\nc = Cast<to=1>(d)"


def _names(text: str) -> list[str]:
    return text.split()


UNARY = _names(
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish Identity LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh "
    "Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Clip "
    "com.microsoft::Gelu com.microsoft::QuickGelu com.microsoft::FastGelu"
)
# values outside their domain, or jumps, would make the comparison of numbers meaningless
NOT_COMPARED = _names("Acos Acosh Asin Atanh Log Sqrt Ceil Floor Round Sign Reciprocal")
BINARY = _names("Add Div Max Mean Min Mul Pow Sub Sum PRelu")
COMPARE = _names("Equal Greater GreaterOrEqual Less LessOrEqual")
REDUCE = _names(
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceSumSquare"
)
LINE = {"V": (4, 1, 1)}
INT32, UINT8, BOOL = TensorProto.INT32, TensorProto.UINT8, TensorProto.BOOL


def simple_rows() -> list[Row]:
    rows = [
        Row(op, f"c = {op.replace('::', '.')}(a)", [4], runs=op not in NOT_COMPARED, opset=22) for op in UNARY
    ]
    # a weight per channel is sliced; two branches tie; one number per tensor couples nothing
    rows += [Row(op, f"c = {op}(a, V)", [4], weights=LINE, runs=op not in ("Pow", "Div")) for op in BINARY]
    rows += [
        Row(
            op,
            f"d = Conv(x, D)\nc = {op}(a, d)",
            [4],
            weights={"D": (4, 3, 1, 1)},
            runs=op not in ("Pow", "Div"),
        )
        for op in BINARY
    ]
    rows += [Row("Mul", "c = Mul(a, V)", [4], weights={"V": (1,)})]
    rows += [Row(op, f"d = {op}(a, V)\nc = Cast<to=1>(d)", [4], weights=LINE) for op in COMPARE]
    for op in ("And", "Or", "Xor"):
        rows.append(Row(op, through(BOOL, f"d = {op}(p, q)"), [4]))
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        rows.append(Row(op, through(INT32, f"d = {op}(p, q)"), [4]))
    for op in ("Not", "BitwiseNot"):
        rows.append(Row(op, through(BOOL if op == "Not" else INT32, f"d = {op}(p)"), [4]))
    for op in ("IsInf", "IsNaN"):
        rows.append(Row(op, f"d = {op}(a)\nc = Cast<to=1>(d)", [4]))
    for op in REDUCE:
        compare = op not in ("ReduceLogSum",)
        body = f"c = {op}<keepdims=1>(a, axes)"
        rows.append(Row(op, body, [4], weights={"axes": ints(2, 3)}, runs=compare))
        more = {"weights": {"axes": ints(1)}, "last": (2, 1, 1, 1)}
        rows.append(Row(op, body, [], Reason.CROSS_CHANNEL, runs=compare, **more))
    for op in ("AveragePool", "MaxPool", "LpPool"):
        rows.append(Row(op, f"c = {op}<kernel_shape=[2, 2]>(a)", [4]))
    rows += [Row(op, f"c = {op}(a)", [4]) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")]
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        rows.append(Row(op, f"c = {op}<axis=1>(a)", [], Reason.COMPETING))
        rows.append(Row(op, f"c = {op}<axis=-1>(a)", [4]))
    for op in ("ArgMax", "ArgMin"):
        body = f"d = {op}<axis=1>(a)\nc = Cast<to=1>(d)"
        rows.append(Row(op, body, [], Reason.COMPETING, last=(2, 1, 1, 1)))
        rows.append(Row(op, f"d = {op}<axis=3>(a)\nc = Cast<to=1>(d)", [4]))
    return rows


# zero, in a way that only a run shows
AT_RUN_TIME = "m = ReduceMax<keepdims=0>(a)\nt = Cast<to=7>(m)\nu = Mul(t, o)\nv = Add(u, i)\n"
LATE = {"o": scalar(0, np.int64)}


def late_rows() -> list[Row]:
    """Sizes that are known at run time only: pruning cannot rewrite them."""
    frozen: list[tuple[str, str, tuple[int, ...], Shape]] = [
        ("Reshape", "c = Reshape(a, v)", (1, 4, 4, 4), (2, 4, 1, 1)),
        ("Expand", "g = GlobalAveragePool(a)\nc = Expand(g, v)", (1, 4, 4, 4), (2, 4, 1, 1)),
        ("Tile", "c = Tile(a, v)", (1, 2, 1, 1), (2, 8, 1, 1)),
        ("Split", "p, q = Split<axis=1>(a, v)\nc = Add(p, q)", (2, 2), (2, 2, 1, 1)),
        ("Resize", "c = Resize(a, , , v)", (1, 4, 8, 8), (2, 4, 1, 1)),
        ("ConstantOfShape", "d = ConstantOfShape(v)\nc = Add(a, d)", (1, 4, 4, 4), (2, 4, 1, 1)),
    ]
    return [
        Row(op, AT_RUN_TIME + body, [], weights={**LATE, "i": ints(*sizes)}, last=last, runs=op != "Split")
        for op, body, sizes, last in frozen
    ]


# what is gone is zero in the masked model: not after these, so their results are what is cut
MOVES_ZERO = _names("Clip Cos Cosh Exp HardSigmoid Sigmoid Softplus")


STEP: dict[str, Shape | np.ndarray] = {"s": scalar(0.05), "z": scalar(0, np.int8)}

ROWS = [
    *simple_rows(),
    *late_rows(),
    *(Row(op, f"w = {op}({'W, l' if op == 'Clip' else 'W'})\nc = Conv(a, w)", [4, 4],
          weights={"W": (4, 4, 1, 1), **({"l": scalar(0.2)} if op == "Clip" else {})}) for op in MOVES_ZERO),
    *(Row(op, f"w = {op}(W)\nc = Conv(a, w)", [4, 4], weights={"W": (4, 4, 1, 1)})
      for op in ("Tanh", "Neg", "Erf", "Sin", "LeakyRelu")),
    Row("Cast", "p = Cast<to=11>(a)\nc = Cast<to=1>(p)", [4]),
    Row("CastLike", "c = CastLike(a, V)", [4], weights={"V": (7,)}),
    Row("Mod", "c = Mod<fmod=1>(a, V)", [4], weights=LINE, runs=False),
    Row("Where", "m = Greater(a, V)\nc = Where(m, a, V)", [4], weights=LINE),
    Row("com.microsoft::BiasGelu", "c = com.microsoft.BiasGelu(a, V)", [4], weights={"V": (4,)}, tokens=True),
    Row("BitShift", through(UINT8, 'd = BitShift<direction="LEFT">(p, q)'), [4], runs=False),
    # -- convolutions
    Row("Conv", "c = Conv(a, W)", [4, 4], weights={"W": (4, 4, 3, 3)}),
    Row("Conv", "c = Conv<group=2>(a, W, b)", [4, 4], weights={"W": (4, 2, 1, 1), "b": (4,)}),
    Row("Conv", "c = Conv<group=4>(a, W, b)", [4], weights={"W": (4, 1, 1, 1), "b": (4,)}),
    Row("Conv", "c = Conv<group=4>(a, W)", [4], weights={"W": (8, 1, 1, 1)}, last=(2, 8, 1, 1)),
    Row("Conv", "w = Conv(W, a)\nc = Add(a, w)", [], Reason.DYNAMIC_WEIGHT,
        weights={"W": (1, 4, 4, 4)}, runs=False),
    Row("com.microsoft::FusedConv", 'c = com.microsoft.FusedConv<activation="Relu">(a, W)', [4, 4],
        weights={"W": (4, 4, 1, 1)}),
    Row("ConvTranspose", "c = ConvTranspose(a, W, b)", [4, 6], weights={"W": (4, 6, 1, 1), "b": (6,)},
        last=(2, 6, 1, 1)),
    Row("ConvTranspose", "c = ConvTranspose<group=2>(a, W)", [4, 4], weights={"W": (4, 2, 1, 1)}),
    Row("ConvTranspose", "c = ConvTranspose<group=4>(a, W)", [4], weights={"W": (4, 1, 1, 1)}),
    Row("ConvInteger", "q, s, z = DynamicQuantizeLinear(a)\nd = ConvInteger(q, W, z)\nc = Cast<to=1>(d)", [4],
        Reason.CROSS_CHANNEL, weights={"W": np.ones((4, 4, 1, 1), np.int8)}),
    Row("DynamicQuantizeLinear", "q, s, z = DynamicQuantizeLinear(a)\nc = DequantizeLinear(q, s, z)", [],
        Reason.CROSS_CHANNEL),
    Row("QLinearConv", "q = QuantizeLinear(a, s, z)\nd = QLinearConv(q, s, z, W, ws, wz, s, z)\n"
        "c = DequantizeLinear(d, s, z)", [4, 4],
        weights={"s": scalar(0.05), "z": scalar(0, np.int8), "ws": np.full(4, 0.1, np.float32),
                 "wz": np.zeros(4, np.int8), "W": np.arange(16, dtype=np.int8).reshape(4, 4, 1, 1)}),
    Row("QuantizeLinear", "q = QuantizeLinear<axis=1>(a, s, z)\nc = DequantizeLinear<axis=1>(q, s, z)", [4],
        weights={"s": np.full(4, 0.1, np.float32), "z": np.zeros(4, np.int8)}),
    Row("DequantizeLinear", "w = DequantizeLinear<axis=0>(W, s, z)\nc = Conv(a, w)", [4, 4],
        weights={"s": np.full(4, 0.1, np.float32), "z": np.zeros(4, np.int8),
                 "W": np.arange(16, dtype=np.int8).reshape(4, 4, 1, 1)}),
    *(Row(f"com.microsoft::{op}", f"q = QuantizeLinear(a, s, z)\nd = com.microsoft.{op}(q, s, z, {more}s, z)\n"
          "c = DequantizeLinear(d, s, z)", [4], weights=STEP)
      for op, more in (("QLinearAdd", "q, s, z, "), ("QLinearMul", "q, s, z, "), ("QLinearSigmoid", ""),
                       ("QLinearLeakyRelu", ""), ("QLinearGlobalAveragePool", ""))),
    Row("com.microsoft::QLinearAveragePool", "q = QuantizeLinear(a, s, z)\n"
        "d = com.microsoft.QLinearAveragePool<kernel_shape=[2, 2]>(q, s, z, s, z)\n"
        "c = DequantizeLinear(d, s, z)", [4], weights=STEP),
    Row("com.microsoft::QLinearConcat", "q = QuantizeLinear(a, s, z)\n"
        "d = com.microsoft.QLinearConcat<axis=1>(s, z, q, s, z, q, s, z)\nc = DequantizeLinear(d, s, z)", [4],
        weights=STEP, last=(2, 8, 1, 1)),
    Row("com.microsoft::QGemm", "g = GlobalAveragePool(a)\nf = Flatten(g)\nq = QuantizeLinear(f, s, z)\n"
        "d = com.microsoft.QGemm(q, s, z, W, s, z, b, s, z)\ne = DequantizeLinear(d, s, z)\n"
        "c = Unsqueeze(e, i)", [4, 5],
        weights={**STEP, "W": np.arange(-10, 10, dtype=np.int8).reshape(4, 5),
                 "b": np.arange(5, dtype=np.int32), "i": ints(2, 3)}, last=(2, 5, 1, 1)),
    Row("com.microsoft::QGemm", "g = GlobalAveragePool(a)\nf = Flatten(g)\nq = QuantizeLinear(f, s, z)\n"
        "d = com.microsoft.QGemm<transB=1>(q, s, z, W, ws, wz, b, s, z)\ne = DequantizeLinear(d, s, z)\n"
        "c = Unsqueeze(e, i)", [4, 5],
        weights={**STEP, "W": np.arange(-10, 10, dtype=np.int8).reshape(5, 4), "wz": np.zeros(5, np.int8),
                 "ws": np.full(5, 0.1, np.float32), "b": np.arange(5, dtype=np.int32), "i": ints(2, 3)},
        last=(2, 5, 1, 1)),
    # -- matrix products
    tokens("MatMul", "c = MatMul(a, W)", [4, 4], weights={"W": (4, 4)}),
    tokens("MatMul", "t = Transpose<perm=[0, 2, 1]>(a)\nd = MatMul(a, t)\nc = MatMul(d, a)", [4]),
    tokens("MatMul", "c = MatMul(W, a)", [4], weights={"W": (4, 4)}),
    tokens("com.microsoft::FusedMatMul", "c = com.microsoft.FusedMatMul<transB=1>(a, W)", [4, 4],
           weights={"W": (4, 4)}),
    tokens("MatMulInteger", "q, s, z = DynamicQuantizeLinear(a)\nd = MatMulInteger(q, W, z)\n"
           "c = Cast<to=1>(d)", [4], Reason.CROSS_CHANNEL, weights={"W": np.ones((4, 4), np.int8)}),
    tokens("QLinearMatMul", "q = QuantizeLinear(a, s, z)\nd = QLinearMatMul(q, s, z, W, ws, wz, s, z)\n"
           "c = DequantizeLinear(d, s, z)", [4, 4],
           weights={"s": scalar(0.05), "z": scalar(0, np.int8), "ws": np.full(4, 0.1, np.float32),
                    "wz": np.zeros(4, np.int8), "W": np.arange(16, dtype=np.int8).reshape(4, 4)}),
    *(tokens("Gemm", f"f = Flatten<axis=2>(a)\nt = Transpose<perm=[{1 if ta else 0}, {0 if ta else 1}]>(f)\n"
             f"g = Gemm<transA={ta}, transB={tb}>(t, W, b)\nc = Unsqueeze(g, i)", [4, 6],
             weights={"W": (6, 4) if tb else (4, 6), "b": (6,), "i": ints(0)}, last=(6, 2))
      for ta in (0, 1) for tb in (0, 1)),
    tokens("Einsum", 'c = Einsum<equation="btd,od->bto">(a, W)', [4, 6], weights={"W": (6, 4)}, last=(6, 2)),
    tokens("Einsum", 'd = Einsum<equation="bid,bjd->bij">(a, a)\nc = MatMul(d, a)', [4]),
    tokens("Einsum", 'c = Einsum<equation="...d,od->...o">(a, W)', [4, 6], weights={"W": (6, 4)}, last=(6, 2)),
    tokens("Einsum", 'c = Einsum<equation="...d, ...d -> ...d">(a, V)', [4], weights={"V": (1, 1, 4)}),
    tokens("Einsum", 'd = Einsum<equation="...ii->...i">(a)\nc = Unsqueeze(d, i)', [], Reason.MODE,
           weights={"i": ints(1)}),
    tokens("Einsum", 'c = Einsum<equation="btd,dd->btd">(a, W)', [], Reason.MODE, weights={"W": (4, 4)}),
    # -- movement
    Row("Transpose", "t = Transpose<perm=[0, 2, 3, 1]>(a)\nc = Transpose<perm=[0, 3, 1, 2]>(t)", [4]),
    Row("Reshape", "r = Reshape(a, i)\nc = Reshape(r, j)", [4],
        weights={"i": ints(0, -1, 16), "j": ints(1, 4, 4, 4)}),
    Row("Reshape", "r = Reshape(a, i)\nt = Transpose<perm=[0, 2, 1, 3, 4]>(r)\nc = Reshape(t, j)", [4],
        weights={"i": ints(1, 2, 2, 4, 4), "j": ints(1, 4, 4, 4)}),
    Row("Flatten", "f = Flatten(a)\ng = MatMul(f, W)\nc = Unsqueeze(g, i)", [4, 6],
        weights={"W": (64, 6), "i": ints(2, 3)}, last=(2, 6, 1, 1)),
    Row("Squeeze", "g = GlobalAveragePool(a)\ns = Squeeze(g, i)\nc = Unsqueeze(s, i)", [4],
        weights={"i": ints(2, 3)}),
    Row("Unsqueeze", "u = Unsqueeze(a, i)\nc = Squeeze(u, i)", [4], weights={"i": ints(1)}),
    Row("Concat", "c = Concat<axis=1>(a, a)", [4], last=(2, 8, 1, 1)),
    Row("Concat", "d = Conv(x, D)\nc = Concat<axis=1>(a, d)", [3, 4],
        weights={"D": (3, 3, 1, 1)}, last=(2, 7, 1, 1)),
    Row("Concat", "d = Conv(x, D)\nc = Concat<axis=2>(a, d)", [4], weights={"D": (4, 3, 1, 1)}),
    Row("Split", "p, q = Split<axis=1>(a, i)\nc = Concat<axis=1>(q, p)", [3], Reason.SINGLE_POSITION,
        weights={"i": ints(1, 3)}),
    Row("Split", "p, q = Split<axis=1, num_outputs=2>(a)\nc = Add(p, q)", [2], last=(2, 2, 1, 1)),
    Row("Slice", "c = Slice(a, i, j, k)", [4],
        weights={"i": ints(1), "j": ints(9), "k": ints(1)}, last=(2, 3, 1, 1)),
    Row("Slice", "c = Slice(a, i, j, k, s)", [4], last=(2, 2, 1, 1),
        weights={"i": ints(0), "j": ints(4), "k": ints(1), "s": ints(2)}),
    Row("Gather", "c = Gather<axis=1>(a, i)", [4], weights={"i": ints(3, 1, -4)}, last=(2, 3, 1, 1)),
    Row("Gather", "n = Shape(a)\ni = Gather<axis=0>(n, j)\nm = ReduceMax<keepdims=0>(a)\nt = Cast<to=7>(m)\n"
        "h = Mul(t, z)\nu = Unsqueeze(h, v)\nc = Gather<axis=1>(a, u)", [], Reason.DATA_DEPENDENT, runs=False,
        weights={"j": scalar(0, np.int64), "z": scalar(0, np.int64), "v": ints(0)}, last=(2, 1, 1, 1)),
    Row("Expand", "g = GlobalAveragePool(a)\nc = Expand(g, i)", [4], weights={"i": ints(1, 4, 4, 4)}),
    Row("Expand", "m = Conv(x, D)\nc0 = Expand(m, i)\nc = Add(a, c0)", [4],
        weights={"i": ints(1, 4, 4, 4), "D": (1, 3, 1, 1)}),
    Row("Tile", "c = Tile(a, i)", [4], weights={"i": ints(1, 2, 1, 1)}, last=(2, 8, 1, 1)),
    Row("Tile", "m = Conv(x, D)\nd = Tile(m, i)\nc = Add(a, d)", [4],
        weights={"i": ints(1, 4, 1, 1), "D": (1, 3, 1, 1)}),
    Row("Pad", "c = Pad(a, i)", [4], weights={"i": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
    Row("Pad", "d = Conv(x, D)\np = Pad(a, i)\nc = Add(p, d)", [6],
        weights={"i": ints(0, 1, 0, 0, 0, 1, 0, 0), "D": (6, 3, 1, 1)}, last=(2, 6, 1, 1)),
    Row("Pad", 'c = Pad<mode="reflect">(a, i)', [], Reason.MODE, weights={"i": ints(0, 1, 0, 0, 0, 1, 0, 0)},
        last=(2, 6, 1, 1)),
    Row("ConstantOfShape", "n = Shape(a)\nd = ConstantOfShape(n)\nc = Add(a, d)", [4]),
    Row("Shape", "n = Shape(a)\nf = Flatten(a)\nc = Reshape(f, n)", [4]),
    Row("Size", "n = Size(a)\nf = Cast<to=1>(n)\nc = Div(a, f)", [4]),
    # -- normalisations
    Row("BatchNormalization", "c = BatchNormalization(a, s, b, m, v)", [4],
        weights={"s": (4,), "b": (4,), "m": (4,), "v": np.ones(4, np.float32)}),
    Row("InstanceNormalization", "c = InstanceNormalization(a, s, b)", [4], weights={"s": (4,), "b": (4,)}),
    Row("GroupNormalization", "c = GroupNormalization<num_groups=2>(a, s, b)", [2],
        weights={"s": (4,), "b": (4,)}),
    Row("GroupNormalization", "c = GroupNormalization<num_groups=2>(a, s, b)", [2],
        weights={"s": (2,), "b": (2,)}, opset=18, runs=False),  # onnx.checker refuses this version
    tokens("LayerNormalization", "c = LayerNormalization(a, s, b)", [], Reason.CROSS_CHANNEL,
           weights={"s": (4,), "b": (4,)}),
    tokens("RMSNormalization", "c = RMSNormalization(a, s)", [], Reason.CROSS_CHANNEL,
           weights={"s": (4,)}, opset=23),
    tokens("SimplifiedLayerNormalization", "c = SimplifiedLayerNormalization(a, s)", [], Reason.CROSS_CHANNEL,
           weights={"s": (4,)}, runs=False),  # onnx.checker does not know it
    tokens("com.microsoft::SkipLayerNormalization", "c = com.microsoft.SkipLayerNormalization(a, a, s, b)",
           [],
           Reason.CROSS_CHANNEL, weights={"s": (4,), "b": (4,)}),
    tokens("com.microsoft::SkipSimplifiedLayerNormalization",
           "c = com.microsoft.SkipSimplifiedLayerNormalization(a, a, s)", [], Reason.CROSS_CHANNEL,
           weights={"s": (4,)}),
    Row("LRN", "c = LRN<size=3>(a)", [], Reason.CROSS_CHANNEL),
    Row("LpNormalization", "c = LpNormalization<axis=1>(a)", [], Reason.CROSS_CHANNEL),
    Row("LpNormalization", "c = LpNormalization<axis=-1>(a)", [4]),
    Row("MeanVarianceNormalization", "c = MeanVarianceNormalization<axes=[2, 3]>(a)", [4]),
    Row("MeanVarianceNormalization", "c = MeanVarianceNormalization<axes=[1]>(a)", [], Reason.CROSS_CHANNEL),
    Row("TopK", "c, i = TopK<axis=1>(a, k)", [], Reason.COMPETING, weights={"k": ints(2)}, last=(2, 2, 1, 1)),
    Row("TopK", "c, i = TopK<axis=3>(a, k)", [4], weights={"k": ints(2)}),
    Row("CumSum", "c = CumSum(a, k)", [], Reason.COMPETING, weights={"k": scalar(1, np.int64)}),
    Row("CumSum", "c = CumSum(a, k)", [4], weights={"k": scalar(2, np.int64)}),
    # -- space
    Row("GridSample", "c = GridSample(a, G)", [4], weights={"G": (1, 2, 2, 2)}),
    Row("com.microsoft::GridSample", "c = com.microsoft.GridSample(a, G)", [4], weights={"G": (1, 2, 2, 2)}),
    Row("RoiAlign", "c = RoiAlign<output_height=2, output_width=2>(a, R, i)", [4],
        weights={"R": np.array([[0, 0, 2, 2]], np.float32), "i": ints(0)}),
    Row("MaxRoiPool", "c = MaxRoiPool<pooled_shape=[2, 2]>(a, R)", [4],
        weights={"R": np.array([[0, 0, 0, 2, 2]], np.float32)}),
    Row("Resize", "c = Resize(a, , s)", [4], weights={"s": np.array([1, 1, 2, 2], np.float32)}),
    Row("Resize", "c = Resize(a, , , s)", [4], weights={"s": ints(1, 4, 8, 8)}),
    Row("Upsample", "c = Upsample(a, s)", [4], weights={"s": np.array([1, 1, 2, 2], np.float32)}, opset=9),
    Row("DepthToSpace", 'd = Conv(a, D)\nc = DepthToSpace<blocksize=2, mode="DCR">(d)', [4, 4],
        weights={"D": (16, 4, 1, 1)}),
    Row("DepthToSpace", 'd = Conv(a, D)\nc = DepthToSpace<blocksize=2, mode="CRD">(d)', [4, 4],
        weights={"D": (16, 4, 1, 1)}),
    Row("SpaceToDepth", "c = SpaceToDepth<blocksize=2>(a)", [4], last=(2, 16, 1, 1)),
    # -- recurrences: t n i -> t d n h
    *(tokens(op, f'r = {op}<hidden_size=3, direction="{way}">(a, W, R, b)\n'
             "t = Transpose<perm=[0, 2, 1, 3]>(r)\nc = Reshape(t, i)", [3, 4],
             weights={"W": (n, 3 * g, 4), "R": (n, 3 * g, 3), "b": (n, 6 * g), "i": ints(0, 0, -1)},
             last=(3 * n, 2))
      for op, g in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
      for way, n in (("forward", 1), ("reverse", 1), ("bidirectional", 2))),
    # -- attention with two heads of two: whole heads go
    tokens("com.microsoft::MultiHeadAttention",
           "q = MatMul(a, Q)\nk = MatMul(a, K)\nv = MatMul(a, V)\n"
           "c = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v)", [2, 4],
           weights={"Q": (4, 4), "K": (4, 4), "V": (4, 4)}),
    tokens("com.microsoft::Attention", "c = com.microsoft.Attention<num_heads=2>(a, W, b)", [2, 4],
           weights={"W": (4, 12), "b": (12,)}),
    tokens("Attention", "q = MatMul(a, Q)\nk = MatMul(a, K)\nv = MatMul(a, V)\n"
           "c = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v)", [2, 4],
           weights={"Q": (4, 8), "K": (4, 4), "V": (4, 4)}, last=(8, 2), opset=23),
    tokens("Attention", "q0 = MatMul(a, Q)\nq1 = Reshape(q0, i)\nq = Transpose<perm=[0, 2, 1, 3]>(q1)\n"
           "o = Attention(q, q, q)\nt = Transpose<perm=[0, 2, 1, 3]>(o)\nc = Reshape(t, j)", [2, 4],
           weights={"Q": (4, 4), "i": ints(0, 4, 2, 2), "j": ints(0, 4, 4)}, opset=24),
    tokens("com.microsoft::GroupQueryAttention",
           "q = MatMul(a, Q)\nk = MatMul(a, K)\nv = MatMul(a, V)\n"
           "c, pk, pv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, k, v, , , n, m)",
           [2, 4], weights={"Q": (4, 64), "K": (4, 32), "V": (4, 32), "n": np.array([3], np.int32),
                            "m": scalar(4, np.int32)}, last=(64, 2)),
    # -- what has no rule
    Row("", "c = custom.Thing(a)", [], Reason.UNKNOWN_OPERATOR, runs=False),
    Row("", "c = Einsum<equation=\"nchw->nchw\">(a)", [4]),
    Row("", "k = Constant<value_ints=[1]>()\nb = Cast<to=9>(k)\ns = Squeeze(b)\n"
        "c = If<then_branch = t () => (float[1,4,4,4] u) { u = Relu(a) }, "
        "else_branch = e () => (float[1,4,4,4] w) { w = Identity(a) }>(s)", [], Reason.CONTROL_FLOW),
]  # fmt: skip

# Registered, but no row runs them.
EXEMPT = {
    "Swish": "opset 24; onnxruntime 1.31 has no kernel for it",
    "BitCast": "opset 26; onnxruntime 1.31 has no kernel for it",
    "Affine": "an experimental operator that onnx removed",
    "Crop": "an experimental operator that onnx removed",
    "ImageScaler": "an experimental operator that onnx removed",
    "ParametricSoftplus": "an experimental operator that onnx removed",
    "ScaledTanh": "an experimental operator that onnx removed",
    "com.microsoft::SimplifiedLayerNormalization": "an alias; onnxruntime registers the standard domain's",
}


def identifier(row: Row) -> str:
    return row.op.replace("::", ".") or row.body.split("\n")[0]


def analysed(model: onnx.ModelProto) -> Coupling:
    return couple(build_graph(load_model(model)[0]))


@pytest.mark.parametrize("row", ROWS, ids=identifier)
def test_what_the_operator_couples(row: Row) -> None:
    coupling = analysed(row.model())
    groups = find_groups(coupling)
    assert sorted(g.channels.size for g in groups if g.prunable) == sorted(row.expected)
    if row.reason is not None:
        assert row.reason in {event.reason for event in coupling.coupler.frozen}


@pytest.mark.parametrize("row", [r for r in ROWS if r.runs], ids=identifier)
def test_removing_channels_is_exact(row: Row) -> None:
    model = row.model()
    assert oracle.session(model)
    for seed in range(3):
        case = prune(model, seed)
        check_equal(case)
        assert bool(row.expected) == (case.removed > 0) or case.allow_inexact


def test_every_operator_is_covered() -> None:
    assert {row.op for row in ROWS if row.op} | set(EXEMPT) == set(all_rules())
    assert not {row.op for row in ROWS} & set(EXEMPT)


@pytest.mark.parametrize("body", ["", ", , m"], ids=["prunable", "frozen by a mask"])
def test_macs_of_attention_count_also_where_it_is_frozen(body: str) -> None:
    """Two heads of width 2 over 4 tokens: scores and weighted sums, 4 x 4 x 4 each; three products."""
    row = tokens(
        "com.microsoft::MultiHeadAttention",
        f"c = com.microsoft.MultiHeadAttention<num_heads=2>(a, a, a{body})",
        [2],
        weights={"m": np.ones((1, 4), np.int32)},
    )
    coupling = analysed(row.model())
    assert bool([g for g in find_groups(coupling) if g.prunable]) == (not body)
    work = CostModel(coupling)
    assert work.total_macs == 4 * 3 * 4 + 2 * 4 * 4 * 4 + 4 * 4 * 2
