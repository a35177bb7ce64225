"""A metric of a module over a whole data set."""

from __future__ import annotations

import torch
from torch import nn

from graphprune.data.samples import Source
from graphprune.errors import DataError
from graphprune.search.answers import every
from graphprune.training.batches import tensors
from graphprune.training.devices import Devices
from graphprune.training.metrics import Metric


@torch.no_grad()
def evaluate(module: nn.Module, data: Source, metric: Metric, batch_size: int, devices: Devices) -> float:
    """``metric`` over every sample of ``data``, in eval mode; the module's mode is put back.

    Raises DataError where the data has no labels.
    """
    training = module.training
    module.eval()
    try:
        for batch in map(tensors, data.batches(batch_size, shuffle=False, drop_last=False)):
            if batch.labels is None:
                raise DataError(f"--eval-data {data.name} has no labels to measure {metric.name} with")
            found = every(module(*devices.inputs(batch.inputs)))
            metric.update(
                tuple((x.float() if x.is_floating_point() else x).cpu() for x in found), batch.labels
            )
    finally:
        module.train(training)
    return metric.value()
