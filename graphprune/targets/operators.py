"""Rule ``operator``: operators that the target lacks."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from graphprune.errors import OptionError
from graphprune.graph import operator_name
from graphprune.lookup import hint
from graphprune.targets.findings import FAIL, Finding
from graphprune.targets.target import Target


def missing_operators(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Every node, those of sub-graphs included, whose operator ``target`` lacks.

    Raises OptionError where ``target`` names an operator that ONNX does not know.
    """
    known = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    for op in target.lacks:
        if "::" not in op and op not in known:
            near = hint(op, known, "name it as ONNX does")
            raise OptionError(f"target {target.name}: lacks names {op!r}, which is no ONNX operator: {near}")
    for index, node in enumerate(ir.traversal.RecursiveGraphIterator(model.graph)):
        op = operator_name(node.domain, node.op_type)
        if op in target.lacks:
            name = node.name or next((o.name for o in node.outputs if o.name), f"node_{index}")
            advice = "try graphprune rewrite with the same --target"
            yield Finding(FAIL, "operator", name, f"{target.name} lacks {op}", advice=advice)
