"""The Python API: load, analyze, prune, verify, save; the same words as the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.analysis import Analysis, analyze_model
from graphprune.engine import Engine
from graphprune.errors import OptionError, PlanError
from graphprune.lookup import hint
from graphprune.models import Model, load, sizes_by_name
from graphprune.plan import Plan, plan_path
from graphprune.recipes.training import TrainingOptions
from graphprune.results import PruneResult, result_of

if TYPE_CHECKING:
    from graphprune.calibration.collect import Progress
    from graphprune.calibration.inputs import Data, Reading
    from graphprune.proof import Fidelity


def analyze(
    source: Any,
    example_inputs: Any = None,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    attention: str = "heads",
    allow_inexact: bool = False,
    structure: str = "channel",
    block: str = "16x8x1x1",
    nm: str = "2:4",
    nm_axis: str = "input",
    max_layer_sparsity: float = 0.98,
    sensitivity: bool = False,
    ratios: Sequence[float] = (0.1, 0.3, 0.5),
    method: str | None = None,
    data: Data | None = None,
    eval_data: str | Reading | None = None,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Analysis:
    """Find the coupled channels of a model, what they cost, and what cannot be pruned and why.

    ``source``: see ``load``; ``example_inputs``: of an ``nn.Module``, a tensor or a tuple.
    ``structure`` block or nm: also how many blocks or N:M groups every weight has (``Analysis.patterns``);
    branch: also the residual branches (``Analysis.branches``).
    ``input_shapes``: input name -> sizes, for inputs with dynamic axes (others are guessed, see
    ``Analysis.notes``). ``sensitivity``: also prune each group alone, by ``ratios`` of its filters, and measure the
    accuracy on ``eval_data`` (labelled), else how far outputs move on ``data``, else on noise
    (``Analysis.sensitivity``); ``method``, ``samples``: see ``sensitivity.Asked``; ``progress``: as in ``prune``.
    Raises ModelError, OptionError, DataError.
    """
    from graphprune.choosing import PruneOptions, requested_budget
    from graphprune.pattern_report import pattern_report

    model = load(source, example_inputs)
    analysis = analyze_model(
        model.ir,
        model.name,
        input_shapes=model.sizes(input_shapes),
        attention=attention,
        allow_inexact=allow_inexact,
        notes=model.notes,
    )
    sparsity = None if structure == "nm" else 0.0
    options = PruneOptions(
        requested_budget(structure, nm, {"sparsity": sparsity}),
        structure=structure,
        block=block,
        nm=nm,
        nm_axis=nm_axis,
        max_layer_sparsity=max_layer_sparsity,
    )
    if structure == "branch":
        from graphprune.branches.pruning import analyze_branches

        analysis.branches = analyze_branches(model, analysis)
    elif structure != "channel":
        analysis.patterns = pattern_report(analysis.graph, options)
    if not sensitivity:
        return analysis
    from graphprune.calibration.collect import silent
    from graphprune.sensitivity import Asked, analyze_sensitivity

    asked = Asked(ratios, method, data, eval_data, samples)
    options = replace(
        options,
        attention=attention,
        allow_inexact=allow_inexact,
        multiple_of=1,
        seed=seed,
        input_shapes=model.sizes(input_shapes),
    )
    return analyze_sensitivity(model, analysis, options, asked, progress or silent)


def prune(
    source: Any,
    example_inputs: Any = None,
    *,
    structure: str = "channel",
    sparsity: float | None = None,
    params: float | None = None,
    macs: float | None = None,
    latency: float | None = None,
    engine: Engine | None = None,
    method: str | None = None,
    block: str = "16x8x1x1",
    nm: str = "2:4",
    nm_axis: str = "input",
    max_layer_sparsity: float = 0.98,
    allocation: str | None = None,
    multiple_of: int | None = None,
    min_channels: int = 1,
    ratios: Mapping[str, float] | None = None,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    attention: str = "heads",
    allow_inexact: bool = False,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    training: TrainingOptions | None = None,
    data: Data | None = None,
    samples: int | None = None,
    compensate: str | None = None,
    progress: Progress | None = None,
    in_place: bool = False,
) -> PruneResult:
    """Prune a model under exactly one budget and prove ``masked original == pruned``.

    ``source``: see ``load``. For an ``nn.Module``, ``example_inputs`` is what its forward takes, a tensor or a tuple;
    the result's ``module`` is the pruned one, and with ``in_place`` ``source`` itself is sliced as well.
    ``structure``: ``channel`` removes whole channels; ``block`` zeroes weights in blocks of outputs x inputs x
    kernel; ``nm`` leaves N of every M weights along ``nm_axis`` (input or output), and takes no budget; ``branch``
    removes whole residual branches (``branches.pruning.prune_branches``).
    ``sparsity``: share of prunable output channels to remove, of weights in blocks, or of branches; ``params`` /
    ``macs``: share of the whole model's (channels, branches). ``latency``: the share of the model's latency in
    onnxruntime on this machine that may stay (channels, without training), measured as ``engine`` says.
    ``max_layer_sparsity``: no weight loses more of its blocks.
    ``allocation``: how the budget is spread; None is the method's own (uniform in one shot, global when
    trained). ``multiple_of``: None keeps counts aligned automatically. ``ratios``: glob on node or weight
    names -> share for those groups. ``training``: data, recipe and more, for methods that train. ``data``: inputs
    that a method looks at without training: what ``--data`` takes, or dicts of input name -> batch; at most
    ``samples`` of them (None: as many as are worth it). ``compensate``: what kept weights get for those that go,
    ``none``, ``bias`` or ``lstsq``; None is the method's own. ``method``: None is ``reconstruct`` with ``data``,
    ``magnitude`` without. ``progress`` is told what is done, and how much of how much.

    Raises BudgetError where the budget is out of reach, OptionError where ``in_place`` is not possible.
    """
    common: dict[str, Any] = {
        "structure": structure,
        "block": block,
        "nm": nm,
        "nm_axis": nm_axis,
        "max_layer_sparsity": max_layer_sparsity,
        "multiple_of": multiple_of,
        "min_channels": min_channels,
        "ratios": tuple((ratios or {}).items()),
        "only": tuple(only),
        "exclude": tuple(exclude),
        "attention": attention,
        "allow_inexact": allow_inexact,
    }
    budget = {"sparsity": sparsity, "params": params, "macs": macs}
    if latency is not None:
        _check_latency(training, method)
        budget["latency"] = latency
        common["engine"] = engine or Engine()
    if allocation is not None:
        common["allocation"] = allocation
    model = load(source, example_inputs)
    words = {**common, **budget, "method": method}
    if method is None:
        words["method"] = "reconstruct" if data is not None and structure != "branch" else "magnitude"
    if structure == "branch":
        words["input_shapes"] = model.sizes(input_shapes)
        return _prune_branches(model, training, words, data, samples, seed)
    way = _way(words["method"], training, data, samples, compensate, progress)

    def run(m: Model) -> PruneResult:
        return way(m, {**words, "input_shapes": m.sizes(input_shapes)}, seed)

    if in_place and model.traced is None:
        raise OptionError("in_place slices a PyTorch module: an ONNX model is never changed in place")
    if model.traced is None:
        return run(model)
    from graphprune.modules import prune_module

    return prune_module(model, run, in_place=in_place)


def _check_latency(training: TrainingOptions | None, method: str | None) -> None:
    """Raises OptionError for what trains: its masks learn under a budget that the graph alone tells."""
    from graphprune.methods import all_trained

    if training is not None or method in all_trained():
        raise OptionError(
            "--latency does not go with training: prune to it without (--data and --method reconstruct), and train the "
            "result; or train to --macs"
        )


Way = Callable[[Model, dict[str, Any], int], PruneResult]


def _way(
    method: str,
    training: TrainingOptions | None,
    data: Data | None,
    samples: int | None,
    compensate: str | None,
    progress: Progress | None,
) -> Way:
    """How a call is served: by training, by looking at inputs, or from weights alone. Raises OptionError."""
    from graphprune.calibration.criteria import all_data_criteria

    if data is None and compensate is None and method not in all_data_criteria():
        return lambda model, words, seed: _prune(model, training, words, seed, progress)
    if training is not None:
        raise OptionError(
            f"method {method} with data, samples or compensate does not train: leave out training, or give "
            "TrainingOptions alone to a method that does"
        )
    from graphprune.calibrated import prune_seen

    return lambda model, words, seed: prune_seen(
        model, words, seed, data=data, samples=samples, compensate=compensate, progress=progress
    )


def _prune(
    model: Model,
    training: TrainingOptions | None,
    words: dict[str, Any],
    seed: int,
    progress: Progress | None,
) -> PruneResult:
    """In one shot with numpy where a criterion and no data are given, else with PyTorch."""
    from graphprune.choosing import options_from
    from graphprune.criteria import all_criteria, find_criterion
    from graphprune.pruning import prune_channels
    from graphprune.weight_pruning import prune_weights

    method = words["method"]
    if method not in all_criteria() or training is not None:
        return _train(model, training, words, seed)
    options = options_from(words, seed, find_criterion(method).allocation)
    if options.structure == "channel":
        pruned = prune_channels(
            model.ir, model.name, options, sha256=model.sha256(), notes=model.notes, progress=progress
        )
    else:
        pruned = prune_weights(model, options)
    return result_of(model, pruned)


def _prune_branches(
    model: Model,
    training: TrainingOptions | None,
    words: dict[str, Any],
    data: Data | None,
    samples: int | None,
    seed: int,
) -> PruneResult:
    from graphprune.branches.pruning import prune_branches
    from graphprune.calibration.inputs import SAMPLES, calibration_feeds
    from graphprune.choosing import options_from

    if training is not None:
        raise OptionError("structure branch does not train: give data, and train the result")
    if model.traced is not None:
        raise OptionError("structure branch takes an ONNX model: export the module to a file first")
    options = options_from(words, seed)
    feeds = None if data is None else calibration_feeds(data, model.ir, samples or SAMPLES, seed=seed)
    pruned = prune_branches(model, options, feeds)
    return result_of(model, pruned)


def _train(source: Model, training: TrainingOptions | None, words: dict[str, Any], seed: int) -> PruneResult:
    """Prune with a method that trains, or train after one that does not.

    Raises OptionError for an unknown method, or one without the data that it needs.
    """
    from graphprune.calibration.criteria import all_data_criteria
    from graphprune.criteria import all_criteria
    from graphprune.methods import all_trained, searching

    method = words["method"]
    if method not in {**all_criteria(), **all_trained()}:
        known = [*all_data_criteria(), *all_criteria(), *all_trained()]
        raise OptionError(f"unknown method {method!r}: {hint(method, known)}")
    without_data = searching(method).data == "none"
    if training is None and not without_data:
        raise OptionError(f"--method {method} needs inputs: give it --data (labels are not needed)")
    try:
        from graphprune.search.search import Search
        from graphprune.training.run import train
    except ImportError as error:
        if error.name != "torch":
            raise
        raise OptionError(f"--method {method} needs PyTorch: pip install torch") from None
    if training is None:
        search = Search(source, seed=seed, **words)
        search.finish()
        return search.result()
    return train(source, replace(training, recipe=replace(training.recipe, seed=seed)), **words)


def apply(
    source: Any,
    plan: Plan | str | os.PathLike[str],
    *,
    sidecar: str | os.PathLike[str] | None = None,
) -> PruneResult:
    """Carry out a plan again on the model that it was made from, and prove the result.

    With ``plan.weights == "original"`` the saved result is, byte for byte, the file that the plan was written with.
    ``sidecar``: the ``.blocks.npz`` of an N:M plan; it defaults to the one beside the plan's file. Raises PlanError
    where the plan was made from another model, its weights were trained or refitted, or it was changed.
    """
    from graphprune.applying import apply_plan, sidecar_of

    model = load(source)
    if isinstance(plan, Plan):
        found, beside = plan, None
    else:
        found, beside = Plan.load(Path(plan)), sidecar_of(plan)
    return result_of(model, apply_plan(model, found, beside if sidecar is None else Path(sidecar)))


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
    return verify_models(first.ir, second.ir, found, input_shapes=sizes_by_name(input_shapes))


__all__ = ["Model", "PruneResult", "TrainingOptions", "analyze", "apply", "load", "prune", "verify"]
