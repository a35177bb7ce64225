"""Odd graphs that are valid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.hostile.kit import (
    Made,
    convolutions,
    model,
    node,
    normal,
    only_analysed,
    right,
    right_by_own_proof,
)


@only_analysed("nothing in this model can be pruned")
def no_weights(folder: Path) -> Made:
    return model([node("Relu", ["x"], ["y"])])


@only_analysed("nothing in this model can be pruned")
def an_input_that_is_the_output(folder: Path) -> Made:
    proto = model([node("Relu", ["x"], ["y"])], outputs=["x", "y"])
    return proto


@only_analysed("nothing in this model can be pruned")
def no_nodes(folder: Path) -> Made:
    return model([], outputs=["x"])


@only_analysed("onnxruntime cannot run the original")
def no_outputs(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights, outputs=[])


@only_analysed("nothing in this model can be pruned")
def no_inputs(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights | {"x": normal(1, 3, 8, 8)}, inputs={})


@right
def several_inputs_and_outputs(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    more = [
        node("Conv", ["x2", "w3"], ["d"]),
        node("Concat", ["c", "d"], ["e"], axis=1),
        node("Conv", ["e", "w4"], ["y"]),
    ]
    weights |= {"w3": normal(6, 4, 1, 1), "w4": normal(5, 12, 1, 1)}
    return model(
        [*nodes, *more], weights, inputs={"x": [1, 3, 8, 8], "x2": [1, 4, 8, 8]}, outputs=["y", "b", "d"]
    )


@right
def an_output_listed_twice(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights, outputs=["y", "y"])


@right
def a_weight_used_twice(folder: Path) -> Made:
    nodes = [
        node("Conv", ["x", "w1"], ["a"]),
        node("Conv", ["a", "w"], ["b"]),
        node("Conv", ["b", "w"], ["c"]),
        node("Conv", ["c", "w2"], ["y"]),
    ]
    return model(nodes, {"w1": normal(8, 3, 1, 1), "w": normal(8, 8, 1, 1), "w2": normal(4, 8, 1, 1)})


@right
def a_weight_used_twice_once_transposed(folder: Path) -> Made:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Gemm", ["b", "w"], ["c"], transB=1),
        node("MatMul", ["c", "w2"], ["d"]),
        node("MatMul", ["d", "w3"], ["y"]),
    ]
    weights = {"w": normal(6, 16), "w2": normal(6, 12, seed=1), "w3": normal(12, 3, seed=2)}
    return model(nodes, weights, inputs={"x": [2, 6]})


@right
def a_weight_that_is_an_output(folder: Path) -> Made:
    nodes = [
        node("Conv", ["x", "w1"], ["a"]),
        node("Conv", ["a", "w2"], ["b"]),
        node("Conv", ["b", "w3"], ["y"]),
    ]
    weights = {"w1": normal(8, 3, 1, 1), "w2": normal(8, 8, 1, 1), "w3": normal(4, 8, 1, 1)}
    return model(nodes, weights, outputs=["y", "w1"])


@right
def weights_that_are_inputs(folder: Path) -> Made:
    nodes, weights = convolutions()
    inputs: dict[str, Sequence[int | str] | None] = {"x": [1, 3, 8, 8]}
    return model(
        nodes, weights, inputs=inputs | {n: w.shape for n, w in weights.items()}, ir_version=3, opset=9
    )


@right_by_own_proof
def a_chain_of_3000(folder: Path) -> Made:
    nodes, weights = convolutions("n0")
    chain = [node("Relu", [f"n{i}"], [f"n{i + 1}"]) for i in range(3000)]
    return model([*nodes, *chain, node("Relu", ["n3000"], ["y"])], weights, inputs={"x": [1, 3, 2, 2]})


NAMES = (
    "a b",
    "a/b/c:0",
    "größe",
    "層",
    "🙂",
    "a\nb",
    "a'b\"c",
    "*?[x]",
    "\x1b[31mred",
    "-o",
    "\t",
    "\u202e",
    "a\\b",
)
"""The names that values, weights and nodes have in ``odd_names``."""


@right
def odd_names(folder: Path) -> Made:
    nodes, weights = [], {}
    last, width = "x", 3
    for number, name in enumerate(NAMES):
        weights[f"weight {name}"] = normal(8, width, 1, 1, seed=number)
        nodes.append(node("Conv", [last, f"weight {name}"], [name], f"node {name}"))
        last, width = name, 8
    return model([*nodes, node("Conv", [last, "head"], ["y"])], weights | {"head": normal(4, 8, 1, 1)})
