"""Zeros in ordinary tensors: what the sparsity features of TensorRT and OpenVINO look for themselves."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graphprune.formats.registry import file_format
from graphprune.packed import Packed


@file_format("dense-zeros")
def store(model: ir.Model, weights: Mapping[str, Packed], notes: list[str]) -> None:
    """Ordinary tensors that hold the zeros; every toolchain reads it."""
