"""What the original model says, kept between epochs where that fits into memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from graphprune.data.samples import Source
from graphprune.search.answers import Outputs
from graphprune.training.batches import TensorBatch, tensors
from graphprune.training.devices import Devices

CACHED_BYTES = 1 << 28
"""Outputs of all samples may take this much memory."""


class Teacher:
    """The original module, in eval mode and without gradients."""

    def __init__(self, module: nn.Module, forward: Callable[[nn.Module, Outputs], Outputs]) -> None:
        self.module, self._forward = module.eval(), forward
        self._table: Outputs | None = None

    def __call__(self, batch: TensorBatch, inputs: Outputs) -> Outputs:
        """Outputs for ``inputs`` (on the module's device), which are ``batch``'s, augmented or not."""
        if self._table is not None and batch.indices is not None:
            rows = torch.from_numpy(batch.indices)
            return tuple(x[rows].to(inputs[0].device) for x in self._table)
        with torch.no_grad():
            return self._forward(self.module, inputs)

    @torch.no_grad()
    def remember(self, source: Source, batch_size: int, devices: Devices) -> bool:
        """Run over all samples once, in order, so that a resumed run reads the same numbers.

        Returns whether the outputs are kept: the source must number its samples, and they must fit.
        """
        if source.size is None:
            return False
        rows: list[Outputs] = []
        order: list[torch.Tensor] = []
        for batch in map(tensors, source.batches(batch_size, shuffle=False, drop_last=False)):
            if batch.indices is None:
                return False
            outputs = self._forward(self.module, devices.inputs(batch.inputs))
            if any(x.ndim == 0 or x.shape[0] != len(batch.indices) for x in outputs):
                return False
            each = sum(x.element_size() * x[0].numel() for x in outputs)
            if each * source.size > CACHED_BYTES:
                return False
            rows.append(tuple(x.float().cpu() if x.is_floating_point() else x.cpu() for x in outputs))
            order.append(torch.from_numpy(batch.indices))
        place = torch.cat(order)
        joined = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        self._table = tuple(torch.empty_like(x).index_copy_(0, place, x) for x in joined)
        return True
