"""ONNX files and objects -> onnx_ir.Model, guarding what onnx_ir would silently drop."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes.common import InlinePass, TopologicalSortPass

from graphprune.errors import ModelError
from graphprune.frontends.attributes import check_attributes
from graphprune.frontends.external import check_external, refuse_external
from graphprune.frontends.functions import check_functions
from graphprune.frontends.recognising import looks_like
from graphprune.frontends.sparse import densified
from graphprune.frontends.tensors import check_tensors, graphs_of

OLDEST_OPSET = 7

LARGEST_FILE = (1 << 31) - 1
"""protobuf ends here; larger models keep their weights in other files."""


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
        model = _from_memory(source, "the model", notes)
    elif isinstance(source, ir.Model):
        model = source
    elif _is_graphsurgeon(source):
        import onnx_graphsurgeon as gs

        model = _from_memory(gs.export_onnx(source), "the graphsurgeon graph", notes)
    else:
        raise ModelError(
            f"cannot load a {type(source).__name__}: give a path, an onnx.ModelProto, an onnx_ir.Model "
            "or an onnx_graphsurgeon.Graph"
        )
    check_functions(model)
    try:
        if model.functions:
            model = InlinePass()(model).model
        TopologicalSortPass()(model)
    except Exception as error:  # onnx_ir's passes raise many types for a graph that contradicts itself
        raise ModelError(f"the graph is not valid ({_first_line(error)}): export the model again") from error
    _unique_node_names(model, notes)
    return model, notes


def _is_graphsurgeon(source: Any) -> bool:
    return type(source).__module__.split(".")[0] == "onnx_graphsurgeon"


def _load_path(path: Path, notes: list[str]) -> ir.Model:
    proto = _read(path)
    check_tensors(proto, str(path))
    check_external(proto, path)
    model = _from_proto(proto, str(path), notes)
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        ir.external_data.set_base_dir(graph, os.path.dirname(os.path.abspath(path)))
    return model


def _read(path: Path) -> onnx.ModelProto:
    """Raises ModelError for what is no file with an ONNX graph in it."""
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if path.is_dir():
        raise ModelError(f"{path} is a folder: name the .onnx file inside it")
    if not path.is_file():  # a pipe or a device may never end
        raise ModelError(f"{path} is no plain file: copy the model into one")
    if path.stat().st_size > LARGEST_FILE:
        raise ModelError(
            f"{path} is larger than the 2 GiB that an ONNX file can have: keep weights in external data"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    guess = looks_like(data[:64])
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        what = f"it looks like {guess}" if guess else f"{_first_line(error)}: export the model again"
        raise ModelError(f"{path} is not a readable ONNX file: {what}") from error
    if not proto.HasField("graph") or (not proto.graph.node and not proto.graph.output):
        what = f"it looks like {guess}" if guess else "it holds no graph"
        raise ModelError(f"{path} is not an ONNX model: {what}")
    return proto


def _from_memory(proto: onnx.ModelProto, what: str, notes: list[str]) -> ir.Model:
    check_tensors(proto, what)
    refuse_external(proto, what)
    return _from_proto(proto, what, notes)


def _from_proto(proto: onnx.ModelProto, what: str, notes: list[str]) -> ir.Model:
    proto = densified(proto, what, notes)
    if proto.graph.quantization_annotation:
        notes.append("quantization annotations are not kept in the written file")
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:  # onnx_ir raises many types for a malformed graph
        raise ModelError(
            f"{what} is not a valid ONNX graph ({_cause(error)}): export the model again"
        ) from error
    for node in model.graph:
        words = (node.op_type, node.domain, node.name, *(v.name for v in (*node.inputs, *node.outputs) if v))
        if any(isinstance(word, bytes) for word in words):  # protobuf's way to hand over invalid UTF-8
            raise ModelError(f"{what} holds a name that is not UTF-8 text: the file is damaged")
    _check_names(proto, what)
    check_attributes(proto, what)
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is None and any(node.domain in ("", "ai.onnx") for node in model.graph):
        raise ModelError(f"{what} does not say which opset it uses: export the model again")
    if opset is not None and opset < OLDEST_OPSET and len(model.graph) > 0:
        raise ModelError(
            f"{what} uses opset {opset}; graphprune reads {OLDEST_OPSET} and newer: "
            "convert it with onnx.version_converter"
        )
    return model


def _check_names(proto: onnx.ModelProto, what: str) -> None:
    for graph in graphs_of(proto):
        twice = _twice(tensor.name for tensor in graph.initializer)
        if twice:
            raise ModelError(f"{what}: two initializers are named {twice[0]!r}: names must be unique")
        twice = _twice(value.name for value in graph.input)
        if twice:
            raise ModelError(f"{what}: two inputs are named {twice[0]!r}: names must be unique")


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _unique_node_names(model: ir.Model, notes: list[str]) -> None:
    """onnxruntime refuses two nodes of one name, which other tools write."""
    nodes = list(model.graph)
    taken = {node.name for node in nodes}
    twice = set(_twice(node.name for node in nodes if node.name))
    seen: set[str] = set()
    renamed = 0
    number: dict[str, int] = {}
    for node in nodes:
        name = node.name or ""
        if name not in twice or name not in seen:
            seen.add(name)
            continue
        while (new := f"{name}_{number.setdefault(name, 1)}") in taken:
            number[name] += 1
        node.name = new
        taken.add(new)
        renamed += 1
    if renamed:
        notes.append(
            f"{renamed} nodes had the name of another and got names of their own (the first: {min(twice)!r})"
        )


def _cause(error: BaseException) -> str:
    """onnx_ir wraps what went wrong in what it was doing at the time."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
