"""Parts of a model in onnxruntime: from some of its values to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.running import THREADS, Results, first_line, reads, runnable, top_level_values


class Segment:
    """Computes ``outputs`` from ``inputs`` (names of values); use it in a ``with`` statement.

    ``dtypes``: numpy types of inputs that are not inputs of the model. Graph optimisations are on: this is for
    statistics, not for proofs. Raises ModelError where onnxruntime refuses the model or what it is fed.
    """

    def __init__(
        self,
        model: ir.Model,
        inputs: Sequence[str],
        outputs: Sequence[str],
        dtypes: Mapping[str, str],
        *,
        threads: int = THREADS,
    ) -> None:
        self._model: ir.Model | None = _part(model, inputs, outputs, dtypes)
        self._threads = threads
        self._session: Any = None
        self.outputs = list(outputs)

    def __enter__(self) -> Self:
        if not self.outputs:  # onnxruntime refuses such a model
            return self
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        assert self._model is not None
        data = ir.to_proto(self._model).SerializeToString()
        self._model = None
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base
            raise _refused(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def run(self, feed: Mapping[str, np.ndarray]) -> Results:
        """Every output by name; ``feed`` may hold more than is needed."""
        if not self.outputs:
            return {}
        wanted = {i.name: feed[i.name] for i in self._session.get_inputs()}
        try:
            arrays = self._session.run(self.outputs, wanted)
        except Exception as error:
            raise _refused(error) from error
        return dict(zip(self.outputs, arrays, strict=True))


def _refused(error: Exception) -> ModelError:
    return ModelError(
        f"onnxruntime cannot run the model on the calibration data: {first_line(error)}; check that they fit"
    )


def _part(
    model: ir.Model, inputs: Sequence[str], outputs: Sequence[str], dtypes: Mapping[str, str]
) -> ir.Model:
    model = runnable(model)
    graph = model.graph
    values = top_level_values(graph)
    own = {v.name for v in graph.inputs}
    wanted = [values[name] for name in outputs]
    needed = needed_nodes(wanted, {values[n] for n in inputs})
    graph.outputs[:] = wanted
    given = [v for v in graph.inputs if v.name in inputs]
    for name in inputs:
        if name in own:
            continue
        old = values[name]
        kind = ir.DataType.from_numpy(np.dtype(dtypes.get(name) or "float32"))
        new = ir.Value(name=name, type=ir.TensorType(kind))
        old.name = f"{name}/computed"
        for user, index in old.uses():
            user.replace_input_with(index, new)
        given.append(new)
    graph.remove([n for n in graph if n not in needed])
    read = {v for n in graph for v in reads(n)} | set(graph.outputs)
    graph.inputs[:] = [v for v in given if v in read]
    for name in [n for n, v in graph.initializers.items() if v not in read]:
        del graph.initializers[name]
    return model


def needed_nodes(wanted: Iterable[ir.Value], known: set[ir.Value]) -> set[ir.Node]:
    """Nodes that ``wanted`` are computed by, where ``known`` values are given."""
    found: set[ir.Node] = set()
    stack = list(wanted)
    while stack:
        value = stack.pop()
        node = None if value in known else value.producer()
        if node is not None and node not in found:
            found.add(node)
            stack.extend(reads(node))
    return found
