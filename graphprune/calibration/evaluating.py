"""Accuracy of an ONNX model on labelled data, in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from graphprune.calibration.inputs import BATCH_SIZE, Reading
from graphprune.calibration.segments import Segment
from graphprune.data.inputs import input_specs
from graphprune.errors import DataError
from graphprune.running import THREADS, Feed

Labelled = tuple[Feed, np.ndarray]
"""A batch of inputs by name, and its labels."""


def accuracy(model: ir.Model, reading: Reading) -> float:
    """Share of samples whose largest output along axis 1 is their label; ``[n, classes, ...]`` against ``[n, ...]``.

    Raises DataError for data without labels, or with labels of another shape.
    """
    return accuracy_on(model, labelled(model, reading), reading.data)


def labelled_batches(model: ir.Model, reading: Reading, samples: int, *, seed: int = 0) -> list[Labelled]:
    """About ``samples`` labelled samples, in the order that ``seed`` decides, to measure many models on.

    Raises DataError for data without labels.
    """
    found: list[Labelled] = []
    count = 0
    for feed, labels in labelled(model, reading, seed):
        found.append((feed, labels))
        count += len(labels)
        if count >= samples:
            break
    return found


def accuracy_on(model: ir.Model, batches: Iterable[Labelled], where: str, *, threads: int = THREADS) -> float:
    """The same, on batches that are read already; ``where`` is what messages call them. Raises DataError."""
    hits = count = 0
    name = model.graph.outputs[0].name or ""
    with Segment(model, [i.name for i in input_specs(model)], [name], {}, threads=threads) as part:
        for feed, labels in batches:
            found = part.run(feed)[name]
            answers = found.argmax(1) if found.ndim > 1 else found
            if answers.shape != labels.shape:
                raise DataError(
                    f"labels of {where} have shape {labels.shape} and the model's answers {answers.shape}: "
                    "accuracy is for class labels"
                )
            hits += int((answers == labels).sum())
            count += int(np.prod(labels.shape))
    return hits / max(count, 1)


def labelled(model: ir.Model, reading: Reading, seed: int | None = None) -> Iterator[Labelled]:
    """All batches, in the order of the data where there is no ``seed``. Raises DataError for data without labels."""
    inputs = input_specs(model)
    source = reading.open(model, "eval")
    if not source.labelled:
        raise DataError(
            f"{source.name} has no labels, so no accuracy can be measured on it: give labelled data"
        )
    fixed = [s.shape[0] for s in inputs if s.shape and s.shape[0] is not None]
    size = fixed[0] if fixed else reading.batch_size or BATCH_SIZE
    shuffle = seed is not None
    for batch in source.batches(size, seed=seed or 0, shuffle=shuffle, drop_last=bool(fixed)):
        assert batch.labels is not None
        yield dict(zip((s.name for s in inputs), batch.inputs, strict=True)), batch.labels
