"""The Python API: load, analyze, prune, verify, save; the same words as the command line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir

from graphprune.analysis import Analysis, analyze_model
from graphprune.errors import OptionError, PlanError
from graphprune.frontends.loading import load_model
from graphprune.plan import Plan, plan_path
from graphprune.writing import save_model, to_proto, write_text

if TYPE_CHECKING:
    import onnx_graphsurgeon

    from graphprune.proof import Fidelity

STRUCTURES = ("channel",)


@dataclass(eq=False)
class Model:
    """A loaded model. Convert back with ``to_onnx``, ``to_ir`` or ``to_graphsurgeon``; write with ``save``."""

    ir: onnx_ir.Model
    name: str = "model"
    path: Path | None = None
    notes: list[str] = field(default_factory=list)

    def to_ir(self) -> onnx_ir.Model:
        """The onnx_ir model itself (not a copy)."""
        return self.ir

    def to_onnx(self) -> onnx.ModelProto:
        """As a protobuf."""
        return to_proto(self.ir)

    def to_graphsurgeon(self) -> onnx_graphsurgeon.Graph:
        """As an onnx_graphsurgeon Graph (which drops metadata_props)."""
        import onnx_graphsurgeon

        return onnx_graphsurgeon.import_onnx(self.to_onnx())

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the model, whole or not at all. Raises OptionError where ``path`` exists, unless ``force``."""
        return save_model(self.ir, Path(path), force=force)

    def sha256(self) -> str:
        """Of the file's bytes, or of the serialised model where it came from memory."""
        if self.path is None:
            return hashlib.sha256(self.to_onnx().SerializeToString(deterministic=True)).hexdigest()
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()


@dataclass(eq=False)
class PruneResult:
    """What ``prune`` returns: the smaller model, the plan, the proof and the analysis it rests on."""

    model: Model
    plan: Plan
    fidelity: Fidelity
    analysis: Analysis
    removed_channels: int
    """Producer filters that went, of ``analysis.prunable_channels``."""

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the model and, beside it, its plan (``OUT.plan.json``)."""
        target = Path(path)
        if not force and plan_path(target).exists():
            raise OptionError(
                f"{plan_path(target)} exists already: use --force to replace it, or another name"
            )
        written = self.model.save(target, force=force)
        write_text(plan_path(target), self.plan.to_json(), force=True)
        return written


def load(source: Any) -> Model:
    """Load a path, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or an ``onnx_graphsurgeon.Graph``.

    Raises ModelError for what is not a usable ONNX model.
    """
    if isinstance(source, Model):
        return source
    model, notes = load_model(source)
    if isinstance(source, str | os.PathLike):
        return Model(model, str(source), Path(source), notes)
    return Model(model, model.graph.name or "model", None, notes)


def analyze(
    source: Any,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    attention: str = "heads",
    allow_inexact: bool = False,
) -> Analysis:
    """Find the coupled channels of a model, what they cost, and what cannot be pruned and why.

    ``input_shapes``: input name -> sizes, for inputs with dynamic axes (others are guessed, see
    ``Analysis.notes``). Raises ModelError, OptionError.
    """
    model = load(source)
    return analyze_model(
        model.ir,
        model.name,
        input_shapes=_shapes(input_shapes),
        attention=attention,
        allow_inexact=allow_inexact,
        notes=model.notes,
    )


def prune(
    source: Any,
    *,
    structure: str = "channel",
    sparsity: float | None = None,
    params: float | None = None,
    macs: float | None = None,
    method: str = "magnitude",
    allocation: str = "uniform",
    multiple_of: int | None = None,
    min_channels: int = 1,
    ratios: Mapping[str, float] | None = None,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    attention: str = "heads",
    allow_inexact: bool = False,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> PruneResult:
    """Prune a model under exactly one budget and prove ``masked original == pruned``.

    ``sparsity``: share of prunable output channels to remove; ``params`` / ``macs``: share of the whole
    model's. ``multiple_of``: None keeps counts aligned automatically. ``ratios``: glob on node or weight
    names -> share for those groups. Raises BudgetError where the budget is out of reach.
    """
    from graphprune.budget import Budget
    from graphprune.pruning import PruneOptions, prune_channels

    if structure not in STRUCTURES:
        raise OptionError(f"unknown structure {structure!r}: use one of {', '.join(STRUCTURES)}")
    given = {k: v for k, v in (("sparsity", sparsity), ("params", params), ("macs", macs)) if v is not None}
    if len(given) != 1:
        raise OptionError("give exactly one of --sparsity, --params and --macs")
    ((kind, requested),) = given.items()
    options = PruneOptions(
        budget=Budget(kind, requested),
        method=method,
        allocation=allocation,
        multiple_of=multiple_of,
        min_channels=min_channels,
        ratios=tuple((ratios or {}).items()),
        only=tuple(only),
        exclude=tuple(exclude),
        attention=attention,
        allow_inexact=allow_inexact,
        seed=seed,
        input_shapes=_shapes(input_shapes),
    )
    model = load(source)
    pruned = prune_channels(model.ir, model.name, options, sha256=model.sha256(), notes=model.notes)
    result = Model(pruned.model, f"{model.name} (pruned)", None, list(model.notes))
    return PruneResult(result, pruned.plan, pruned.fidelity, pruned.analysis, pruned.removed_channels)


def verify(
    original: Any,
    pruned: Any,
    plan: Plan | str | os.PathLike[str] | None = None,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Fidelity:
    """Rebuild the masked original from the pruned model and compare the two in onnxruntime.

    ``plan`` defaults to the file beside ``pruned``. Raises PlanError where there is none, or it belongs
    to another original.
    """
    from graphprune.proof import verify_models

    first, second = load(original), load(pruned)
    if plan is None:
        if second.path is None:
            raise PlanError("a model in memory has no plan beside it: give plan=")
        plan = plan_path(second.path)
    found = plan if isinstance(plan, Plan) else Plan.load(Path(plan))
    if found.source_sha256 != first.sha256():
        raise PlanError(f"the plan was not made from {first.name}: give the file that was pruned")
    return verify_models(first.ir, second.ir, found, input_shapes=_shapes(input_shapes))


def _shapes(given: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]]:
    return {name: tuple(int(s) for s in sizes) for name, sizes in (given or {}).items()}


__all__ = ["Model", "PruneResult", "analyze", "load", "prune", "verify"]
