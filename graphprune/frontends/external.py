"""Weights in files beside the model: where they may lie, and what belongs to the model's hash."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.frontends.tensors import byte_count, tensors_of

_CHUNK = 1 << 20


@dataclass(frozen=True, order=True)
class Stretch:
    """Bytes ``start`` to ``stop`` of ``path`` that the model reads."""

    path: str
    start: int
    stop: int


def check_external(proto: onnx.ModelProto, model: Path) -> None:
    """Raises ModelError where ``proto``, read from ``model``, takes weights from where it must not or cannot.

    A file must lie in the model's folder, be a plain file and be long enough.
    """
    folder = os.path.realpath(model.parent)
    for tensor in tensors_of(proto):
        if _is_external(tensor):
            _check(tensor, model, folder)


def external_data(model: ir.Model) -> list[Stretch]:
    """What a loaded model takes from other files: stretches in order that do not overlap."""
    return _merged(
        Stretch(os.path.realpath(t.path), t.offset or 0, (t.offset or 0) + t.nbytes)
        for t in _tensors(model.graph)
    )


def hold_inner(model: ir.Model) -> None:
    """Map external tensors of nodes and sub-graphs into memory: files are written from the main graph's own alone."""
    for graph in model.graph.subgraphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _held(value.const_value)
    for node, name, tensor in _of_nodes(model.graph):
        node.attributes[name] = ir.AttrTensor(name, _held(tensor))


def _held(tensor: ir.ExternalTensor) -> ir.Tensor:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def refuse_external(proto: onnx.ModelProto, what: str) -> None:
    """Raises ModelError where a model without a folder of its own keeps weights in other files."""
    tensor = next((t for t in tensors_of(proto) if _is_external(t)), None)
    if tensor is not None:
        raise ModelError(
            f"{what} keeps weight {tensor.name!r} in another file: give the path of the model, or load its data first"
        )


def chunks(stretches: Iterable[Stretch]) -> Iterator[bytes]:
    """The bytes, in pieces of a bounded size. Raises ModelError where a file has gone meanwhile."""
    for stretch in stretches:
        try:
            with open(stretch.path, "rb") as file:
                file.seek(stretch.start)
                yield from _read(file, stretch)
        except OSError as error:
            raise ModelError(f"{stretch.path} cannot be read: {error.strerror or error}") from error


def _read(file: BinaryIO, stretch: Stretch) -> Iterator[bytes]:
    left = stretch.stop - stretch.start
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise ModelError(f"{stretch.path} became shorter while it was read: copy it again")
        left -= len(chunk)
        yield chunk


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _tensors(graph: ir.Graph) -> Iterator[ir.ExternalTensor]:
    for inner in (graph, *graph.subgraphs()):
        yield from (
            v.const_value for v in inner.initializers.values() if isinstance(v.const_value, ir.ExternalTensor)
        )
    yield from (tensor for _, _, tensor in _of_nodes(graph))


def _of_nodes(graph: ir.Graph) -> list[tuple[ir.Node, str, ir.ExternalTensor]]:
    return [
        (node, name, attr.value)
        for node in graph.all_nodes()
        for name, attr in node.attributes.items()
        if attr.type == ir.AttributeType.TENSOR and isinstance(attr.value, ir.ExternalTensor)
    ]


def _merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """A file that names the same bytes ten thousand times must not make anybody read them as often."""
    found: list[Stretch] = []
    for one in sorted(stretches):
        last = found[-1] if found else None
        if last is not None and last.path == one.path and one.start <= last.stop:
            found[-1] = Stretch(last.path, last.start, max(last.stop, one.stop))
        else:
            found.append(one)
    return found


def _check(tensor: onnx.TensorProto, model: Path, folder: str) -> None:
    def refused(why: str) -> ModelError:
        return ModelError(f"{model}: weight {tensor.name!r} {why}")

    told = {entry.key: entry.value for entry in tensor.external_data}
    location = told.get("location", "")
    if not location or "\0" in location:
        raise refused("is in another file that has no name: export the model again")
    path = os.path.realpath(os.path.join(folder, location))
    if os.path.commonpath([path, folder]) != folder:
        raise refused(
            f"points outside the model's folder ({location}): put that file into the folder, not a link to it"
        )
    if not os.path.lexists(path):
        raise refused(f"is in {location}, which is missing: put it beside the model")
    if not os.path.isfile(path):
        raise refused(f"is in {location}, which is no plain file: copy the weights again")
    status = os.stat(path)
    if status.st_nlink > 1:  # onnx_ir reads no such file: the other name may lie anywhere
        raise refused(f"is in {location}, which is a hard link: put a copy of that file in its place")
    start, size = _number(told.get("offset"), 0), byte_count(tensor)
    length = _number(told.get("length"), size)
    if start is None or length is None:
        raise refused("has an offset or length that is no number from 0: export the model again")
    if length != size:
        raise refused(
            f"has {length} bytes in {location}, and its shape {list(tensor.dims)} needs {size}: export again"
        )
    if start + length > status.st_size:
        raise refused(f"ends behind the end of {location}, which is too short: copy that file again")


def _number(text: str | None, default: int) -> int | None:
    """An offset or length as written; None for what is no number from 0."""
    if text is None or text == "":
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
