"""Batches of arrays as tensors: where a user's data enters torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from graphprune.data.samples import Batch


@dataclass(frozen=True)
class TensorBatch:
    """A Batch whose ``inputs`` and ``labels`` are tensors on the CPU. indices: as in Batch."""

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None
    indices: np.ndarray | None


def tensors(batch: Batch) -> TensorBatch:
    """The batch as tensors, which share its memory where torch can."""
    labels = None if batch.labels is None else _tensor(batch.labels)
    return TensorBatch(tuple(_tensor(x) for x in batch.inputs), labels, batch.indices)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """``array`` as a tensor of the same shape and number type, contiguous."""
    array = np.require(array, requirements=["C", "W"])  # torch takes no others; copied only if it is not so
    if array.dtype.name == "bfloat16":  # of ml_dtypes, unknown to torch
        return _tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
