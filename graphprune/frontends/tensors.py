"""Whether the tensors of a file hold as many numbers as their shapes say, before anybody reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from graphprune.errors import ModelError

_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_KNOWN = frozenset(int(d) for d in ir.DataType) - {int(ir.DataType.UNDEFINED)}
_TWO_NUMBERS = frozenset({ir.DataType.COMPLEX64, ir.DataType.COMPLEX128})


def graphs_of(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and every sub-graph, also those of local functions."""
    yield proto.graph
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while nodes:
        for attr in nodes.pop().attribute:
            for graph in (*([attr.g] if attr.HasField("g") else []), *attr.graphs):
                yield graph
                nodes.extend(graph.node)


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Dense tensors: initializers and attributes, of sub-graphs and local functions too."""
    for graph in graphs_of(proto):
        yield from graph.initializer
        for node in graph.node:
            yield from _attributes(node)
    for function in proto.functions:
        for node in function.node:
            yield from _attributes(node)


def _attributes(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attr in node.attribute:
        if attr.HasField("t"):
            yield attr.t
        yield from attr.tensors


def check_tensors(proto: onnx.ModelProto, what: str) -> None:
    """Raises ModelError for a tensor whose data does not fit its shape and type; external data is left out.

    A few bytes can claim any shape, so that this is what bounds memory by the size of the file.
    """
    for tensor in tensors_of(proto):
        fault = _fault(tensor)
        if fault is not None:
            raise ModelError(f"{what}: tensor {tensor.name!r} {fault}: export or copy the model again")


def element_count(tensor: onnx.TensorProto) -> int:
    """The number of elements that the shape says."""
    return math.prod(tensor.dims)


def byte_count(tensor: onnx.TensorProto) -> int:
    """The number of bytes that elements of a fixed size take, packed."""
    return -(-element_count(tensor) * _bits(tensor) // 8)


def _bits(tensor: onnx.TensorProto) -> int:
    return round(8 * ir.DataType(tensor.data_type).itemsize)


def _fault(tensor: onnx.TensorProto) -> str | None:
    if any(d < 0 for d in tensor.dims):
        return f"has the shape {list(tensor.dims)}"
    if tensor.data_type not in _KNOWN:
        return f"has the unknown element type {tensor.data_type}"
    if tensor.HasField("segment"):
        return "is a segment of a tensor, which graphprune does not read"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return "is text in another file" if tensor.data_type == ir.DataType.STRING else None
    typed = [name for name in _FIELDS if len(getattr(tensor, name))]
    if len(typed) + bool(tensor.raw_data) > 1:
        return "holds its data twice"
    if tensor.raw_data:
        found, wanted, unit = len(tensor.raw_data), _raw_bytes(tensor), "bytes"
    else:
        field = _field(tensor.data_type)
        if typed and typed != [field]:
            return f"holds {typed[0]}, which is not for its element type"
        found, wanted, unit = len(getattr(tensor, field)), _entries(tensor), "numbers"
    if found != wanted:
        return f"holds {found} {unit}, and its shape {list(tensor.dims)} needs {wanted}"
    return None


def _raw_bytes(tensor: onnx.TensorProto) -> int:
    return -1 if tensor.data_type == ir.DataType.STRING else byte_count(tensor)


def _field(data_type: int) -> str:
    if data_type == ir.DataType.STRING:
        return "string_data"
    return str(onnx.helper.tensor_dtype_to_field(data_type))


def _entries(tensor: onnx.TensorProto) -> int:
    """Entries of the typed field: numbers below 8 bits are packed into bytes, complex ones take two."""
    dtype, count = ir.DataType(tensor.data_type), element_count(tensor)
    if dtype == ir.DataType.STRING:
        return count
    if dtype in _TWO_NUMBERS:
        return 2 * count
    return byte_count(tensor) if _bits(tensor) < 8 else count
