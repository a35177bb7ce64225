"""``graphprune prune``: a smaller model, its plan, and the proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import options, output
from .output import Column, number, percent
from .verify import proof

if TYPE_CHECKING:
    from graphprune import PruneResult


def prune(
    model: options.ModelArgument,
    out: options.OutOption = None,
    structure: options.StructureOption = "channel",
    sparsity: options.SparsityOption = None,
    params: options.ParamsOption = None,
    macs: options.MacsOption = None,
    method: options.MethodOption = "magnitude",
    allocation: options.AllocationOption = options.Allocation.uniform,
    multiple_of: options.MultipleOfOption = "auto",
    min_channels: options.MinChannelsOption = 1,
    ratio: options.RatioOption = None,
    only: options.OnlyOption = None,
    exclude: options.ExcludeOption = None,
    allow_inexact: options.AllowInexactOption = False,
    attention: options.AttentionOption = options.Attention.heads,
    seed: options.SeedOption = 0,
    input_shape: options.InputShapeOption = None,
    json: options.JsonOption = None,
    force: options.ForceOption = False,
) -> None:
    """Remove whole channels of MODEL under one budget, prove the result, write it and its plan.

    Give exactly one of --sparsity, --params and --macs. The plan is OUT with .onnx replaced by
    .plan.json. Nothing is written unless the proof holds.

    \b
    Examples:
      graphprune prune model.onnx --sparsity 0.5
      graphprune prune model.onnx --macs 0.3 -o small.onnx --method bn-scale
      graphprune prune model.onnx --params 0.4 --exclude 'head.*' --ratio 'layer1.*=0.2'
      graphprune prune model.onnx --sparsity 0.5 --multiple-of 32 --json - | jq .params
    """
    target = out if out is not None else default_output(model)
    shapes = options.input_shapes(input_shape)
    shares = options.ratios(ratio)
    step = options.multiple_of(multiple_of)
    _check_targets(model, target, force)
    options.check_json_target(json, model, target)
    from graphprune import api
    from graphprune.criteria import find_criterion

    find_criterion(method)
    loaded = api.load(model)
    result = api.prune(
        loaded,
        structure=structure,
        sparsity=sparsity,
        params=params,
        macs=macs,
        method=method,
        allocation=allocation.value,
        multiple_of=step,
        min_channels=min_channels,
        ratios=shares,
        only=only or (),
        exclude=exclude or (),
        attention=attention.value,
        allow_inexact=allow_inexact,
        seed=seed,
        input_shapes=shapes,
    )
    size = file_size(model)
    result.save(target, force=force)
    if json is not None:
        output.data(result.plan.to_json(), json)
    if json != "-":
        show(result, model, target, size)
    for sentence in result.analysis.notes:
        output.note(sentence)


def default_output(model: Path) -> Path:
    """``model.onnx`` -> ``model.pruned.onnx``."""
    stem = model.name.removesuffix(".onnx")
    return model.with_name(f"{stem}.pruned.onnx")


def file_size(path: Path) -> int:
    """Bytes of a model with the weights that it keeps beside itself in ``PATH.data``."""
    beside = Path(f"{path}.data")
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def show(result: PruneResult, source: Path, target: Path, size_before: int) -> None:
    """The report for people."""
    from graphprune.plan import plan_path

    plan = result.plan
    channels = result.analysis.prunable_channels
    sizes = [
        ("parameters", plan.params["before"], plan.params["after"]),
        ("MACs", plan.macs["before"], plan.macs["after"]),
        ("prunable channels", channels, channels - result.removed_channels),
        ("file bytes", size_before, file_size(target)),
    ]
    output.table(
        f"{source.name} -> {target.name}",
        [
            Column(""),
            Column("before", right=True),
            Column("after", right=True),
            Column("removed", right=True),
        ],
        [(name, number(a), number(b), percent(a - b, a)) for name, a, b in sizes],
    )
    output.text()
    budget = plan.budget
    output.facts(
        [
            ("method", f"{plan.method} ({plan.structure})"),
            (
                "budget",
                f"{budget['kind']} {budget['requested']:g} requested, {budget['achieved']:.4f} achieved",
            ),
            *proof(result.fidelity),
            ("written", f"{target}, {plan_path(target)}"),
        ]
    )


def _check_targets(model: Path, target: Path, force: bool) -> None:
    """Refuse, before any work, what could not be written. Raises OptionError."""
    from graphprune.errors import OptionError
    from graphprune.plan import plan_path

    if target.is_dir():
        raise OptionError(f"{target} is a folder: name a file with -o")
    if not target.parent.is_dir():
        raise OptionError(f"{target.parent} is not a folder: create it first")
    if force:
        return
    if options.same_file(model, target):
        raise OptionError(f"{target} is the model itself: name another file with -o, or use --force")
    for path in (target, plan_path(target)):
        if path.exists():
            raise OptionError(f"{path} exists already: use --force to replace it, or -o for another name")
