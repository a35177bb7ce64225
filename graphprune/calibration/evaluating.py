"""Accuracy of an ONNX model on labelled data, in onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphprune.calibration.inputs import BATCH_SIZE, Reading
from graphprune.calibration.segments import Segment
from graphprune.data.inputs import input_specs
from graphprune.errors import DataError


def accuracy(model: ir.Model, reading: Reading) -> float:
    """Share of samples whose largest output along axis 1 is their label; ``[n, classes, ...]`` against ``[n, ...]``.

    Raises DataError for data without labels, or with labels of another shape.
    """
    inputs = input_specs(model)
    source = reading.open(model, "eval")
    if not source.labelled:
        raise DataError(
            f"{source.name} has no labels, so no accuracy can be measured on it: give labelled data"
        )
    fixed = [s.shape[0] for s in inputs if s.shape and s.shape[0] is not None]
    size = fixed[0] if fixed else reading.batch_size or BATCH_SIZE
    hits = count = 0
    name = model.graph.outputs[0].name or ""
    with Segment(model, [s.name for s in inputs], [name], {}) as part:
        for batch in source.batches(size, shuffle=False, drop_last=bool(fixed)):
            assert batch.labels is not None
            feed = dict(zip((s.name for s in inputs), batch.inputs, strict=True))
            found = part.run(feed)[name]
            answers = found.argmax(1) if found.ndim > 1 else found
            if answers.shape != batch.labels.shape:
                raise DataError(
                    f"labels of {source.name} have shape {batch.labels.shape} and the model's answers {answers.shape}: "
                    "accuracy is for class labels"
                )
            hits += int((answers == batch.labels).sum())
            count += int(np.prod(batch.labels.shape))
    return hits / max(count, 1)
