"""How a case is told: what is built, and what must come of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Made = onnx.ModelProto | bytes | Path


@dataclass(frozen=True)
class Case:
    """``make`` gets an empty folder. ``analyze`` / ``prune``: what the refusal says; None where it must come out right.

    ``oracle``: whether the result is compared once more, by tests.oracle.
    """

    name: str
    make: Callable[[Path], Made]
    analyze: str | None
    prune: str | None
    oracle: bool = False
    vacuous: bool = False

    def write(self, folder: Path) -> Path:
        """The path to give to the command line."""
        made = self.make(folder)
        if isinstance(made, Path):
            return made
        path = folder / "model.onnx"
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return path


def is_one_sentence(err: str, words: str) -> bool:
    """Whether stderr is one line that says ``words`` (a regular expression), and no bug of ours."""
    said = re.search(words, err) is not None
    return said and err.startswith("graphprune: ") and err.count("\n") == 1 and "bug" not in err


CASES: list[Case] = []

Maker = Callable[[Path], Made]


def right(function: Maker) -> Maker:
    """Both commands work, and the pruned file computes what the masked original does."""
    CASES.append(Case(function.__name__, function, None, None, oracle=True))
    return function


def right_by_own_proof(function: Maker) -> Maker:
    """As ``right``, where the oracle cannot read the file: other types, links, names that onnxruntime refuses."""
    CASES.append(Case(function.__name__, function, None, None))
    return function


def vacuous(function: Maker) -> Maker:
    """Both commands work, and the second says that nothing was proved."""
    CASES.append(Case(function.__name__, function, None, None, vacuous=True))
    return function


def refused(words: str) -> Callable[[Maker], Maker]:
    """Neither command works, for the same reason."""

    def mark(function: Maker) -> Maker:
        CASES.append(Case(function.__name__, function, words, words))
        return function

    return mark


def only_analysed(words: str) -> Callable[[Maker], Maker]:
    """It can be looked at, and pruning says why not."""

    def mark(function: Maker) -> Maker:
        CASES.append(Case(function.__name__, function, None, words))
        return function

    return mark


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    inputs: dict[str, Sequence[int | str] | None] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    ir_version: int = 8,
    dtype: int = TensorProto.FLOAT,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A graph whose inputs default to ``x`` of ``[1, 3, 8, 8]``; shapes of outputs are left open."""
    given = {"x": [1, 3, 8, 8]} if inputs is None else inputs
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in given.items()],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [
        helper.make_opsetid("", opset),
        helper.make_opsetid("local", 1),
        helper.make_opsetid("com.microsoft", 1),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions))


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "", **attributes: Any
) -> onnx.NodeProto:
    """As ``helper.make_node``."""
    return helper.make_node(op, inputs, outputs, name or outputs[0], **attributes)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convolutions(last: str = "y") -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """conv1 (8) -> Relu -> conv2 (6) of 1 x 1, without a bias."""
    nodes = [
        node("Conv", ["x", "w1"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], [last]),
    ]
    return nodes, {"w1": normal(8, 3, 1, 1), "w2": normal(6, 8, 1, 1, seed=1)}


def weight_of(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """An initializer."""
    return next(t for t in proto.graph.initializer if t.name == name)
