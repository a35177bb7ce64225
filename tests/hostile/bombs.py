"""A few bytes that ask for more memory than the machine has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from tests.hostile.kit import Made, convolutions, model, node, normal, refused


def growing(nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], result: str) -> onnx.ModelProto:
    """A network beside a constant that takes terabytes."""
    own, more = convolutions("c")
    return model([*own, *nodes, node("Mul", ["c", result], ["y"])], more | weights)


LARGE = np.array([10**6, 10**6], np.int64)


@refused("more than graphprune takes")
def constant_of_shape(folder: Path) -> Made:
    return growing([node("ConstantOfShape", ["s"], ["big"])], {"s": LARGE}, "big")


@refused("more than graphprune takes")
def expand(folder: Path) -> Made:
    return growing(
        [node("Expand", ["one", "s"], ["big"])], {"one": np.ones(1, np.float32), "s": LARGE}, "big"
    )


@refused("more than graphprune takes")
def tile(folder: Path) -> Made:
    return growing([node("Tile", ["one", "s"], ["big"])], {"one": normal(2, 2), "s": LARGE}, "big")


@refused("more than graphprune takes")
def range_of_numbers(folder: Path) -> Made:
    ends = {name: np.array(end, np.float32) for name, end in (("from", 0), ("to", 1e12), ("by", 1))}
    return growing([node("Range", [*ends], ["big"])], ends, "big")


@refused("more than graphprune takes")
def pad(folder: Path) -> Made:
    data = {"one": normal(1, 1), "s": np.full(4, 10**6)}
    return growing([node("Pad", ["one", "s"], ["big"])], data, "big")


@refused("more than graphprune takes")
def an_outer_product(folder: Path) -> Made:
    sides = {f"side{i}": np.ones([4096 if a == i else 1 for a in range(3)], np.float32) for i in range(3)}
    return growing([node("Max", [*sides], ["big"])], sides, "big")


@refused("more than graphprune takes")
def resize(folder: Path) -> Made:
    data = {"one": normal(1, 1, 2, 2), "s": np.array([1, 1, 1e6, 1e6], np.float32)}
    return growing([node("Resize", ["one", "", "s"], ["big"])], data, "big")


@refused("more than graphprune takes")
def a_window_of_terabytes(folder: Path) -> Made:
    return growing([node("HannWindow", ["s"], ["big"])], {"s": np.array(10**12)}, "big")


@refused("more than graphprune takes")
def a_huge_input(folder: Path) -> Made:
    nodes, weights = convolutions()
    return model(nodes, weights, inputs={"x": [1, 3, 10**6, 10**6]})


@refused("more than graphprune takes")
def a_huge_activation(folder: Path) -> Made:
    nodes, weights = convolutions("c")
    return model([*nodes, node("Tile", ["c", "s"], ["y"])], weights | {"s": np.array([10**9, 1, 1, 1])})


@refused("more than 16777216 positions")
def a_long_vector(folder: Path) -> Made:
    return growing([node("ConstantOfShape", ["s"], ["big"])], {"s": np.array([2**27])}, "big")


@refused("more than 16777216 positions")
def many_long_vectors(folder: Path) -> Made:
    nodes = [node("ConstantOfShape", ["s"], [f"v{i}"]) for i in range(50)]
    return growing(nodes, {"s": np.array([2**20])}, "v0")
