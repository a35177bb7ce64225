"""Elementwise operators: labels pass through, or broadcast and tie."""

from __future__ import annotations

from graphprune.coupler import Coupler
from graphprune.graph import Node
from graphprune.labels import Labels
from graphprune.rules.registry import rule


@rule(
    "Abs", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Dropout", "Elu", "Erf", "Floor", "Gelu",
    "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink",
    "Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "BitCast",
    "ScaledTanh", "com.microsoft::Gelu", "com.microsoft::QuickGelu", "com.microsoft::FastGelu",
    settle=False,
    weights=True,
)  # fmt: skip
@rule(  # these make another number of 0, which stands for what is gone: their results are stored, not followed
    "Acos", "Acosh", "Affine", "BitwiseNot", "Clip", "Cos", "Cosh", "Exp", "HardSigmoid", "Log", "Not",
    "ParametricSoftplus", "Reciprocal", "Sigmoid", "Softplus",
    settle=False,
)  # fmt: skip
def unary(c: Coupler, n: Node, x: Labels, *others: Labels | None) -> tuple[Labels, ...]:
    """One tensor in, the same positions out; other inputs are scalars (a bias ties)."""
    extra = [o for o in others if o is not None and o.terms]
    if extra:
        x = c.broadcast(n, [c.settle(x, n), *(c.settle(o, n) for o in extra)])
    return tuple(x for _ in n.outputs)


@rule("CastLike", settle=False, weights=True)
def cast_like(c: Coupler, n: Node, x: Labels, _: Labels) -> Labels:
    """The same positions; of the other operand only the element type matters."""
    return x


@rule(
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow",
    "Sub", "Sum", "Where", "Xor", "com.microsoft::BiasGelu",
)  # fmt: skip
def broadcast(c: Coupler, n: Node, *operands: Labels | None) -> Labels:
    """Operands broadcast; positions that meet go together (a constant operand is sliced)."""
    return c.broadcast(n, [x for x in operands if x is not None])
