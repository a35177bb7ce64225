"""``graphprune prune``: a smaller model, its plan, and the proof."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import calibrating, options, output, paths, sources
from . import training_options as training
from .asked import asked, full_recipe, training_recipe
from .showing import file_size, show
from .watching import Watching

if TYPE_CHECKING:
    from graphprune.recipes.training import TrainingOptions


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

    --structure channel (the default) removes whole channels and takes exactly one of --sparsity, --params and
    --macs, as does branch, which removes whole residual branches; block takes --sparsity, nm takes none. Blocks
    and N:M patterns are zeros in weights: --format says how the file stores them, and OUT.blocks.npz holds them for
    toolchains. --target sets the structure, its pattern, --multiple-of and --format as an accelerator needs them;
    flags given besides win.

    The plan is OUT with .onnx replaced by .plan.json. Nothing is written unless the proof holds.

    With --data and no flag of training, --method reconstruct looks at some inputs and refits what stays, in
    minutes and without labels; with neither, --method magnitude looks at the weights alone.

    --method smart trains masks and weights on --data, by default with MODEL itself as the teacher, so that
    no labels are needed. Ctrl-C keeps a checkpoint (OUT.checkpoint), --resume goes on from it, and the full
    recipe is written beside OUT (OUT.recipe.toml).

    \b
    Examples:
      graphprune prune model.onnx --sparsity 0.5
      graphprune prune model.onnx --sparsity 0.5 --data photos/
      graphprune prune model.onnx --macs 0.3 -o small.onnx --method bn-scale
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
    _check_targets(model, written, force, resume, values["structure"])
    from graphprune import api
    from graphprune.formats import check_format
    from graphprune.plan import beside

    paths.check_json_target(json, model, written, beside(written, ".blocks.npz"), Path(f"{written}.data"))
    check_format(values["format"], values["structure"])
    with Watching() as watching:
        trained = calibrating.trains(values)
        told = _training(values, written, watching) if trained else None
        opened, words["input_shapes"] = sources.open_model(model, values["input_shape"])
        loaded = api.load(opened)
        if not trained:
            words |= calibrating.words(values, watching)
        result = api.prune(loaded, **words, training=told)
        if not trained and values["eval_data"] is not None:
            result.metrics.update(calibrating.metrics(values, loaded, result))
    if not is_first_rank():
        return
    size = file_size(model) if model.exists() else None
    result.save(written, force=force, format=values["format"])
    if told is not None:
        _finish_training(values, written, told)
    if json is not None:
        output.data(result.plan.to_json(), json)
    if json != "-":
        show(result, model, written, size)
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
        "ratios": options.ratios(values["ratio"]),
        "only": values["only"] or (),
        "exclude": values["exclude"] or (),
    }


def _training(values: Mapping[str, Any], target: Path, watching: Watching) -> TrainingOptions:
    """What a method that trains is told. Raises OptionError."""
    from graphprune.plan import beside
    from graphprune.recipes.training import TrainingOptions

    return TrainingOptions(
        data=values["data"],
        recipe=training_recipe(values),
        eval_data=values["eval_data"],
        eval=values["eval"],
        resize=training.size(values["resize"]),
        mean=training.numbers(values["mean"], "--mean"),
        std=training.numbers(values["std"], "--std"),
        checkpoint=beside(target, ".checkpoint"),
        resume=values["resume"],
        watcher=watching,
    )


def _finish_training(values: Mapping[str, Any], target: Path, told: TrainingOptions) -> None:
    """The recipe goes beside the output; the checkpoint has served."""
    from graphprune.plan import beside
    from graphprune.recipes.recipe import write_recipe

    write_recipe(beside(target, ".recipe.toml"), full_recipe(values, told.recipe), force=True)
    if told.checkpoint is not None:
        told.checkpoint.unlink(missing_ok=True)


def is_first_rank() -> bool:
    """Whether this process writes and prints: under torchrun only one does."""
    return os.environ.get("RANK", "0") == "0"


def _check_targets(model: Path, target: Path, force: bool, resume: bool, structure: str) -> None:
    """Refuse, before any work, what could not be written. Raises OptionError."""
    from graphprune.errors import OptionError
    from graphprune.plan import beside, plan_path

    paths.check_output(target)
    if target.suffix == ".pt2" and not sources.is_factory(model):
        raise OptionError(
            f"{target}: .pt2 is for a PyTorch module (package.module:factory); name an .onnx file"
        )
    if force:
        return
    if paths.same_file(model, target):
        raise OptionError(f"{target} is the model itself: name another file with -o, or use --force")
    checkpoint = beside(target, ".checkpoint")
    if checkpoint.exists() and not resume:
        raise OptionError(
            f"{checkpoint} is left from an interrupted run: use --resume to go on, or --force to begin again"
        )
    sidecar = () if structure in ("channel", "branch") else (beside(target, ".blocks.npz"),)
    paths.check_free(target, plan_path(target), *sidecar)
