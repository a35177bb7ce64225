"""ONNX files and objects -> onnx_ir.Model, guarding what onnx_ir would silently drop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes.common import InlinePass, TopologicalSortPass

from graphprune.errors import ModelError
from graphprune.frontends.sparse import densified

OLDEST_OPSET = 7


def load_model(source: Any) -> tuple[ir.Model, list[str]]:
    """Read ``source`` and return the model with sentences the user should see.

    ``source`` is a path, an ``onnx.ModelProto``, an ``onnx_ir.Model`` (used as it is, not copied) or an
    ``onnx_graphsurgeon.Graph``. Weights in external files are memory-mapped, not read. Local functions
    are inlined, because a weight used by two calls must be seen by both.

    Raises ModelError for anything that is not a usable ONNX model.
    """
    notes: list[str] = []
    if isinstance(source, str | os.PathLike):
        model = _load_path(Path(source), notes)
    elif isinstance(source, onnx.ModelProto):
        model = _from_proto(source, "the model", notes)
    elif isinstance(source, ir.Model):
        model = source
    elif _is_graphsurgeon(source):
        import onnx_graphsurgeon as gs

        model = _from_proto(gs.export_onnx(source), "the graphsurgeon graph", notes)
    else:
        raise ModelError(
            f"cannot load a {type(source).__name__}: give a path, an onnx.ModelProto, an onnx_ir.Model "
            "or an onnx_graphsurgeon.Graph"
        )
    try:
        if model.functions:
            model = InlinePass()(model).model
        TopologicalSortPass()(model)
    except Exception as error:  # onnx_ir's passes raise many types for a graph that contradicts itself
        raise ModelError(f"the graph is not valid ({_first_line(error)}): export the model again") from error
    return model, notes


def _is_graphsurgeon(source: Any) -> bool:
    return type(source).__module__.split(".")[0] == "onnx_graphsurgeon"


def _load_path(path: Path, notes: list[str]) -> ir.Model:
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if path.is_dir():
        raise ModelError(f"{path} is a folder: name the .onnx file inside it")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, UnicodeDecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path} is not a readable ONNX file ({_first_line(error)}): export the model again"
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    if not proto.HasField("graph") or (not proto.graph.node and not proto.graph.output):
        raise ModelError(f"{path} is not an ONNX model: it holds no graph")
    model = _from_proto(proto, str(path), notes)
    base = os.path.dirname(os.path.abspath(path))
    ir.external_data.set_base_dir(model.graph, base)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(path, name, tensor, base)
    return model


def _check_external(path: Path, name: str, tensor: ir.ExternalTensor, base: str) -> None:
    target = os.path.realpath(os.path.join(base, os.fspath(tensor.location)))
    if os.path.commonpath([target, os.path.realpath(base)]) != os.path.realpath(base):
        raise ModelError(f"{path}: weight {name!r} points outside the model's folder ({tensor.location})")
    if not os.path.exists(target):
        raise ModelError(
            f"{path}: weight {name!r} is in {tensor.location}, which is missing: put it beside the model"
        )
    need = (tensor.offset or 0) + (tensor.length or 0)
    if os.path.getsize(target) < need:
        raise ModelError(f"{path}: {tensor.location} is too short for weight {name!r}: copy it again")


def _from_proto(proto: onnx.ModelProto, what: str, notes: list[str]) -> ir.Model:
    proto = densified(proto, what, notes)
    if proto.graph.quantization_annotation:
        notes.append("quantization annotations are not kept in the written file")
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:  # onnx_ir raises many types for a malformed graph
        raise ModelError(f"{what} is not a valid ONNX graph ({_first_line(error)})") from error
    for node in model.graph:
        words = (node.op_type, node.domain, node.name, *(v.name for v in (*node.inputs, *node.outputs) if v))
        if any(isinstance(word, bytes) for word in words):  # protobuf's way to hand over invalid UTF-8
            raise ModelError(f"{what} holds a name that is not UTF-8 text: the file is damaged")
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is not None and opset < OLDEST_OPSET and len(model.graph) > 0:
        raise ModelError(
            f"{what} uses opset {opset}; graphprune reads {OLDEST_OPSET} and newer: "
            "convert it with onnx.version_converter"
        )
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
