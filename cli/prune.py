"""``graphprune prune``: a smaller model, its plan, and the proof."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import calibrating, options, output, paths, sources, stopping
from . import training_options as training
from .asked import asked, full_recipe, training_recipe
from .showing import show

if TYPE_CHECKING:
    from graphprune.recipes.training import TrainingOptions

    from .watching import Watching


def prune(
    ctx: typer.Context,
    model: options.SourceArgument,
    out: options.OutOption = None,
    structure: options.StructureOption = "channel",
    block: options.BlockOption = "16x8x1x1",
    nm: options.NmOption = "2:4",
    nm_axis: options.NmAxisOption = "input",
    max_layer_sparsity: options.MaxLayerSparsityOption = 0.98,
    format: options.FormatOption = "dense-zeros",
    target: options.TargetOption = None,
    sparsity: options.SparsityOption = None,
    params: options.ParamsOption = None,
    macs: options.MacsOption = None,
    latency: options.LatencyOption = None,
    provider: options.ProviderOption = None,
    no_cache: options.NoCacheOption = False,
    method: options.MethodOption = None,
    allocation: options.AllocationOption = None,
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
    html: options.HtmlOption = None,
    force: options.ForceOption = False,
    data: training.DataOption = None,
    samples: training.SamplesOption = None,
    compensate: training.CompensateOption = None,
    eval_data: training.EvalDataOption = None,
    eval: training.EvalOption = None,
    resize: training.ResizeOption = None,
    mean: training.MeanOption = None,
    std: training.StdOption = None,
    recipe: training.RecipeOption = None,
    resume: training.ResumeOption = False,
    loss: training.LossOption = None,
    refit: training.RefitOption = None,
    trainable: training.TrainableOption = None,
    distill_temp: training.DistillTempOption = None,
    pretrain_epochs: training.PretrainEpochsOption = None,
    warmup_epochs: training.WarmupEpochsOption = None,
    warmup_steps: training.WarmupStepsOption = None,
    search_epochs: training.SearchEpochsOption = None,
    finetune_epochs: training.FinetuneEpochsOption = None,
    max_steps: training.MaxStepsOption = None,
    batch_size: training.BatchSizeOption = None,
    lr: training.LrOption = None,
    optimizer: training.OptimizerOption = None,
    scheduler: training.SchedulerOption = None,
    momentum: training.MomentumOption = None,
    weight_decay: training.WeightDecayOption = None,
    grad_clip: training.GradClipOption = None,
    ema: training.EmaOption = None,
    augment: training.AugmentOption = None,
    amp: training.AmpOption = None,
    device: training.DeviceOption = None,
    threads: training.ThreadsOption = None,
    checkpoint_minutes: training.CheckpointMinutesOption = None,
    mask_lr: training.MaskLrOption = None,
    mask_optimizer: training.MaskOptimizerOption = None,
    mask_scheduler: training.MaskSchedulerOption = None,
    mask_momentum: training.MaskMomentumOption = None,
    mask_weight_decay: training.MaskWeightDecayOption = None,
    init_temp: training.InitTempOption = None,
    final_temp: training.FinalTempOption = None,
    temp_unit: training.TempUnitOption = None,
    temp_schedule: training.TempScheduleOption = None,
    mask_every: training.MaskEveryOption = None,
    mask_init: training.MaskInitOption = None,
    init_from: training.InitFromOption = None,
    budget_anneal: training.BudgetAnnealOption = None,
    snap: training.SnapOption = None,
    rounds: training.RoundsOption = None,
) -> None:
    """Prune MODEL under one budget, prove the result, write it and its plan.

    --structure channel (the default) removes whole channels and takes exactly one of --sparsity, --params, --macs
    and --latency; branch removes whole residual branches and takes one of the first three; block takes --sparsity,
    nm takes none. Blocks and N:M patterns are zeros in weights: --format says how the file stores them, and
    OUT.blocks.npz holds them for toolchains. --target sets the structure, its pattern, --multiple-of and --format as
    an accelerator needs them; flags given besides win.

    --latency 0.6 leaves 0.6 of the time that MODEL takes in onnxruntime on this machine: layers are measured once and
    kept in the user's cache, and the result is measured twice.

    The plan is OUT with .onnx replaced by .plan.json. Nothing is written unless the proof holds.

    With --data and no flag of training, --method reconstruct looks at some inputs and refits what stays, in
    minutes and without labels; with neither, --method magnitude looks at the weights alone.

    --method smart trains masks and weights on --data, by default with MODEL itself as the teacher, so that
    no labels are needed. Ctrl-C keeps a checkpoint (OUT.checkpoint), --resume goes on from it, and the full
    recipe is written beside OUT (OUT.recipe.toml).

    \b
    Examples:
      graphprune prune model.onnx --sparsity 0.5
      graphprune prune model.onnx --sparsity 0.5 --html report.html
      graphprune prune model.onnx --sparsity 0.5 --data photos/
      graphprune prune model.onnx --macs 0.3 -o small.onnx --method bn-scale
      graphprune prune model.onnx --latency 0.6 --threads 1
      graphprune prune model.onnx --params 0.4 --exclude 'head.*' --ratio 'layer1.*=0.2'
      graphprune prune model.onnx --sparsity 0.5 --multiple-of 32 --json - | jq .params
      graphprune prune model.onnx --structure block --block 16x8x1x1 --sparsity 0.7 --format compact
      graphprune prune model.onnx --structure nm --nm 2:4
      graphprune prune model.onnx --structure branch --macs 0.2 --method finercut --data images.npz
      graphprune prune model.onnx --target npu-16x8 --sparsity 0.7
      graphprune prune package.module:factory --input-shape 1,3,224,224 --sparsity 0.5 -o small.pt2
      graphprune prune model.onnx --sparsity 0.5 --method smart --data images.npz
      graphprune prune model.onnx --sparsity 0.5 --method taylor --data images.npz --rounds 4
      graphprune prune model.onnx --sparsity 0.7 --method smart --data photos/ --structure block --recipe smart-plus
    """
    values = asked(ctx, prune)
    written = out if out is not None else paths.default_output(model, ".pruned.onnx")
    words = _words(values)
    from graphprune import api
    from graphprune.formats import check_format
    from graphprune.plan import beside
    from graphprune.writing import written_bytes

    check_format(values["format"], values["structure"])
    trained = calibrating.trains(values)
    _check_targets(values, written, trained)
    checkpoint = beside(written, ".checkpoint") if trained else None
    watching: Watching = ctx.obj
    with stopping.resumable(checkpoint):
        told = _training(values, checkpoint, watching) if trained else None
        recipe = _recipe(values, told)
        opened, words["input_shapes"] = sources.open_model(model, values["input_shape"])
        loaded = api.load(opened)
        paths.check_weights(loaded.ir, written, *paths.named(json, html), force=force)
        if not trained:
            words |= calibrating.words(values, watching)
        result = api.prune(loaded, **words, training=told)
        if not trained and values["eval_data"] is not None:
            result.metrics.update(calibrating.metrics(values, loaded, result))
    if not is_first_rank():
        return
    size = loaded.stored_bytes
    with stopping.resumable(checkpoint), stopping.unwritten(checkpoint):
        result.save(written, force=force, format=values["format"], recipe=recipe)
    if checkpoint is not None:  # it has served
        checkpoint.unlink(missing_ok=True)
    if json is not None:
        output.data(result.plan.to_json(), json)
    if html is not None:
        sizes = None if size is None else (size, written_bytes(written))
        output.page(result.to_html(recipe=recipe or "", files=sizes), html, force=force)
    if json != "-":
        show(result, model, written, size, html)
    advice = calibrating.advice(values, result)
    for sentence in (*result.analysis.notes, *result.emit(values["format"]).notes, *advice):
        output.note(sentence)
    if target is not None and written.suffix != ".pt2":
        _check_fit(written, target, words["input_shapes"])


def _check_fit(written: Path, target: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Say what of the written file does not fit the target; ``graphprune check`` makes it a failure."""
    from graphprune.targets.checking import check

    report = check(written, target, input_shapes=shapes)
    for finding in report.failures:
        output.note(f"does not fit {report.target}: {finding.text}")


def _words(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of api.prune but for training. Raises OptionError."""
    same = (
        *("structure", "block", "nm", "nm_axis", "max_layer_sparsity"),
        *("sparsity", "params", "macs", "method", "min_channels", "allow_inexact", "seed"),
    )
    allocation = values["allocation"]
    return {
        **{name: values[name] for name in same},
        "allocation": None if allocation is None else str(allocation),
        "attention": str(values["attention"]),
        "multiple_of": options.multiple_of(values["multiple_of"]),
        **_latency(values),
        "ratios": options.ratios(values["ratio"]),
        "only": values["only"] or (),
        "exclude": values["exclude"] or (),
    }


def _latency(values: Mapping[str, Any]) -> dict[str, Any]:
    """The budget of latency, and how it is measured. Raises OptionError."""
    from graphprune.engine import Engine
    from graphprune.errors import OptionError

    if values["latency"] is None:
        if values["provider"] is not None or values["no_cache"]:
            flag = "--no-cache" if values["provider"] is None else "--provider"
            raise OptionError(f"{flag} says how --latency is measured: give --latency too, or leave it out")
        return {}
    engine = Engine(values["threads"] or 0, values["provider"] or "CPU", cache=not values["no_cache"])
    return {"latency": values["latency"], "engine": engine}


def _training(values: Mapping[str, Any], checkpoint: Path | None, watching: Watching) -> TrainingOptions:
    """What a method that trains is told. Raises OptionError."""
    from graphprune.recipes.training import TrainingOptions

    return TrainingOptions(
        data=values["data"],
        recipe=training_recipe(values),
        eval_data=values["eval_data"],
        eval=values["eval"],
        resize=training.size(values["resize"]),
        mean=training.numbers(values["mean"], "--mean"),
        std=training.numbers(values["std"], "--std"),
        checkpoint=checkpoint,
        resume=values["resume"],
        watcher=watching,
    )


def _recipe(values: Mapping[str, Any], told: TrainingOptions | None) -> str | None:
    """What goes beside the output of a training, to run it again. Raises OptionError."""
    from graphprune.recipes.recipe import recipe_text

    return None if told is None else recipe_text(full_recipe(values, told.recipe))


def is_first_rank() -> bool:
    """Whether this process writes and prints: under torchrun only one does."""
    return os.environ.get("RANK", "0") == "0"


def _check_targets(values: Mapping[str, Any], target: Path, trained: bool) -> None:
    """Refuse, before any work, what could not be written. Raises OptionError."""
    from graphprune.errors import OptionError
    from graphprune.plan import beside, history_path, plan_path, recipe_path

    model, force = values["model"], values["force"]
    patterned = values["structure"] not in ("channel", "branch")
    sidecar, checkpoint = beside(target, ".blocks.npz"), beside(target, ".checkpoint")
    files = [target, plan_path(target), *([sidecar] if patterned else [])]
    files += [recipe_path(target), history_path(target)] if trained else []
    own = (*files, sidecar, checkpoint, Path(f"{target}.data"))
    paths.check_json_target(values["json"], model, *own, force=force)
    others = (model, *files, sidecar, checkpoint, history_path(target), *paths.named(values["json"]))
    paths.check_html_target(values["html"], *others, force=force)
    if target.suffix == ".pt2" and not sources.is_factory(model):
        raise OptionError(
            f"{target}: .pt2 is for a PyTorch module (package.module:factory); name an .onnx file"
        )
    if paths.same_file(model, target) and not force:
        raise OptionError(f"{target} is the model itself: name another file with -o, or use --force")
    if trained and checkpoint.exists() and not values["resume"] and not force:
        raise OptionError(
            f"{checkpoint} is left from an interrupted run: use --resume to go on, or --force to begin again"
        )
    paths.check_outputs(*files, force=force)
