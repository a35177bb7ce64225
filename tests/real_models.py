"""Real networks for tests: the nine that ship inside the onnx package, and third-party files beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

SHARED_MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
LIGHT = Path(os.path.dirname(onnx.__file__)) / "backend" / "test" / "data" / "light"

LIGHT_NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet",
    "vgg19", "zfnet512",
)  # fmt: skip


def shared_models() -> list[Path]:
    """The third-party files, or an empty list where the folder is absent."""
    return sorted(SHARED_MODELS.glob("*.onnx"))


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """A real network of the onnx package with seeded random weights in the place of its constant ones.

    He-normal weights and mild normalisation parameters keep activations in a sensible range, so that the
    output depends on the input.
    """
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(seed)
    shapes = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    first_use: dict[str, tuple[str, int]] = {}
    for node in model.graph.node:
        for position, name_ in enumerate(node.input):
            first_use.setdefault(name_, (node.op_type, position))
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = tuple(shapes[node.input[0]].tolist())
        weight = _weight(rng, shape, *first_use.get(node.output[0], ("", 0))).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        if model.ir_version < 4:
            model.graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], 1, shape))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _weight(rng: np.random.Generator, shape: tuple[int, ...], op: str, position: int) -> np.ndarray:
    if len(shape) >= 2:
        return rng.standard_normal(shape) * np.sqrt(1.5 / np.prod(shape[1:]))
    if op == "BatchNormalization" and position == 4:  # variance
        return rng.uniform(0.5, 1.5, shape)
    if (op == "BatchNormalization" and position == 1) or op == "Unsqueeze":
        return rng.uniform(0.4, 0.8, shape)
    return rng.standard_normal(shape) * 0.05
