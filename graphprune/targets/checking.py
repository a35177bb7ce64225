"""``check``: does a file, as it is written, fit a target?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from graphprune.analysis import analyze_model
from graphprune.errors import PlanError
from graphprune.frontends.onnx import build_graph
from graphprune.graph import Graph
from graphprune.models import Model, load, sizes_by_name
from graphprune.plan import Plan, plan_path
from graphprune.targets.blocks import block_findings
from graphprune.targets.channels import channel_findings
from graphprune.targets.claims import Claims, metadata_claims, plan_claims
from graphprune.targets.findings import NOTE, CheckReport, Finding
from graphprune.targets.nm import nm_findings
from graphprune.targets.operators import missing_operators
from graphprune.targets.storage import unread_storage
from graphprune.targets.target import Target, find_target
from graphprune.targets.weights import read_weights


def check(
    source: Any,
    target: Target | str | Path,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> CheckReport:
    """Compare a written model with ``target``: a Target, the name of a shipped one, or a TOML file.

    ``source``: whatever ``load`` takes; of a path, the plan beside it is read too. ``input_shapes``: sizes of
    inputs with dynamic axes. Raises ModelError, OptionError.
    """
    model = load(source)
    known = target if isinstance(target, Target) else find_target(target)
    shapes = sizes_by_name(input_shapes)
    return CheckReport(model.name, known.name, tuple(check_model(model, known, input_shapes=shapes)))


def check_model(
    model: Model, target: Target, *, input_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> list[Finding]:
    """What in ``model`` does not fit ``target``, and what runs without its benefits.

    Raises ModelError for a model that cannot be read, OptionError for a target that names no operator.
    """
    found = list(missing_operators(model.ir, target))
    graph = build_graph(model.ir, input_shapes)
    weights = read_weights(graph)
    claims, doubts = _claims(model, graph)
    found += doubts
    found += unread_storage(weights, _sparse_initializers(model.path, target), target)
    found += block_findings(weights, claims, target)
    found += nm_findings(weights, claims, target)
    found += _idle_sparsity(claims, target)
    if target.multiple_of is not None:
        analysis = analyze_model(model.ir, model.name, input_shapes=dict(input_shapes or {}))
        found += channel_findings(analysis, target)
    return found


def _claims(model: Model, graph: Graph) -> tuple[Claims, list[Finding]]:
    """What the file says of itself: by the plan beside it, else by its metadata. An unusable plan is a note."""
    claims = metadata_claims(dict(model.ir.metadata_props))
    path = None if model.path is None else plan_path(model.path)
    if path is None or not path.exists():
        return claims, []
    shapes = {v.name: v.shape for v in graph.values.values() if v.constant and v.shape is not None}
    try:
        return plan_claims(Plan.load(path), shapes), []
    except PlanError as error:
        return claims, [Finding(NOTE, "plan", "", "the plan beside the file is not used", str(error))]


def _sparse_initializers(path: Path | None, target: Target) -> list[str]:
    """Names of the file's sparse initializers, which a loaded model holds as dense ones."""
    if path is None or "sparse-initializer" in target.reads:
        return []
    proto = onnx.load(path, load_external_data=False)
    return [tensor.values.name for tensor in proto.graph.sparse_initializer]


def _idle_sparsity(claims: Claims, target: Target) -> Iterator[Finding]:
    """A file that was pruned in a way from which the target has nothing."""
    useful = {"block": target.block, "nm": target.nm}
    if claims.structure in useful and useful[claims.structure] is None:
        sentence = f"pruned by --structure {claims.structure}, whose zeros {target.name} does not skip"
        yield Finding(NOTE, str(claims.structure), "", sentence)
