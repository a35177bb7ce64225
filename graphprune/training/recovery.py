"""After the masks are fixed: which parameters train on."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from graphprune.calibration.views import views
from graphprune.errors import OptionError
from graphprune.graph import Graph, Node, Value

_NORMALISATIONS = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
_BIAS_OPERAND = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "LSTM": 3, "GRU": 3, "RNN": 3}
"""Operator -> which operand is its bias."""
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div"})
"""Biases that stand alone, and normalisations that an exporter wrote out."""
_SAME_NUMBERS = frozenset({"Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Expand"})


def trainable(kind: str, weights: Mapping[str, nn.Parameter], graph: Graph) -> set[str]:
    """Names among ``weights`` (ONNX tensor -> parameter) that train once masks are fixed.

    kind: ``all``, or ``biases-and-norms`` (PERP, Zimmer et al. 2023, arXiv:2312.15230): biases, and scales and
    biases of normalisations. Raises OptionError where there are none.
    """
    if kind == "all":
        return set(weights)
    found = {n for n in weights if n in graph.values and _shifts_or_scales(graph.values[n])}
    if not found:
        raise OptionError(f"--trainable {kind}: the model has no bias and no normalisation, so use all")
    return found


def freeze(weights: Mapping[str, nn.Parameter], trained: Collection[str]) -> None:
    """Let only ``trained`` have gradients from now on; optimisers pass over the others."""
    for name, parameter in weights.items():
        if name not in trained:
            parameter.requires_grad_(False)
            parameter.grad = None


def training_share(weights: Mapping[str, nn.Parameter], trained: Collection[str], kind: str) -> str:
    """How many parameters train on, for a note."""
    total = sum(p.numel() for p in weights.values())
    some = sum(p.numel() for name, p in weights.items() if name in trained)
    share = 100 * some / max(total, 1)
    return f"once the masks are fixed, {some:,} of {total:,} parameters train ({share:.2g} %): {kind}"


def check_refit(graph: Graph) -> None:
    """Raises OptionError where ``--refit`` has nothing to fit."""
    if not views(graph):
        raise OptionError("--refit: no contraction stores its weight as floating-point numbers: leave it out")


def _shifts_or_scales(value: Value) -> bool:
    return bool(value.consumers) and all(_reads_affine(node, value) for node in value.consumers)


def _reads_affine(node: Node, value: Value) -> bool:
    """Whether ``node`` adds ``value`` to channels, or multiplies them by it."""
    if node.op in _NORMALISATIONS:
        return node.input(0) is not value
    if node.op in _BIAS_OPERAND:
        return node.input(_BIAS_OPERAND[node.op]) is value
    if node.op in _SAME_NUMBERS:
        return node.input(0) is value and all(_shifts_or_scales(v) for v in node.outputs)
    vector = value.shape is not None and sum(size > 1 for size in value.shape) == 1
    return node.op in _ELEMENTWISE and vector
