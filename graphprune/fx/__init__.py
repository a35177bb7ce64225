"""ONNX -> torch.fx: one short converter per operator family. Importing this package registers them all."""

from graphprune.fx import (
    attention,
    convolution,
    elementwise,
    indexing,
    matmul,
    movement,
    nonlinear,
    normalization,
    pooling,
    recurrent,
    reduction,
    resize,
    shapes,
)
from graphprune.fx.conversion import Conversion
from graphprune.fx.importer import Imported, accepts_batches, import_model
from graphprune.fx.registry import Converter, all_converters, converter, find_converter

__all__ = [
    "Conversion",
    "Converter",
    "Imported",
    "accepts_batches",
    "all_converters",
    "attention",
    "converter",
    "convolution",
    "elementwise",
    "find_converter",
    "import_model",
    "indexing",
    "matmul",
    "movement",
    "nonlinear",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "resize",
    "shapes",
]
