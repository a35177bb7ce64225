"""Attributes of another kind than the operator's definition says, refused before anything reads them."""

from __future__ import annotations

from typing import Any

import onnx

from graphprune.errors import ModelError


def check_attributes(proto: onnx.ModelProto, what: str) -> None:
    """Compare the standard operators' attributes with their definitions (their type only, not their values).

    ``what`` names the model in messages. Raises ModelError for the first that has another type.
    """
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        try:
            known = onnx.defs.get_schema(node.op_type, opset, "").attributes
        except onnx.defs.SchemaError:  # newer than this onnx, or of nobody
            continue
        for attribute in node.attribute:
            expected = known.get(attribute.name)
            if expected is None or not attribute.type or attribute.ref_attr_name:
                continue
            wanted: Any = expected.type  # an enumeration of onnx's, of which its type stubs know little
            if int(wanted) != attribute.type:
                found = onnx.AttributeProto.AttributeType.Name(attribute.type)
                raise ModelError(
                    f"{what}: attribute {attribute.name!r} of node {node.name or next(iter(node.output), '')!r} "
                    f"({node.op_type}) is {found}, and must be {wanted.name}: export the model again"
                )
