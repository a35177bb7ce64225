"""Shapes that no inference function can tell, read off one onnxruntime run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from graphprune.graph import Graph

MAX_MODEL_BYTES = 1_500_000_000


def measure_shapes(
    model: ir.Model, graph: Graph, names: Sequence[str]
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Run ``model`` once on ones and return name -> (shape, dtype) for the values in ``names``.

    Returns an empty dict where the model cannot be run; its unknown shapes then freeze what they touch.
    """
    import onnxruntime as ort

    if sum(v.size for v in graph.stored()) * 4 > MAX_MODEL_BYTES:
        return {}
    if any(v.shape is None for v in graph.inputs):
        return {}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        proto = ir.to_proto(model)
        wanted = [n for n in names if n]
        known = {o.name for o in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted if n not in known)
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = {}
        for value in graph.inputs:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(
                onnx.TensorProto.DataType.Value(_proto_name(value.dtype))
            )
            feeds[value.name] = np.ones(value.shape or (), dtype)
        results = session.run(wanted, feeds)
    except Exception:  # noqa: BLE001 - onnxruntime and onnx_ir raise many types of their own
        return {}
    return {
        name: (tuple(array.shape), str(array.dtype))
        for name, array in zip(wanted, results, strict=True)
        if isinstance(array, np.ndarray)
    }


def _proto_name(dtype: str) -> str:
    return {"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper())
