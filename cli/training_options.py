"""Options of trained methods, once. Their defaults are the recipe's; a flag that is given overrides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import completing

if TYPE_CHECKING:
    from graphprune.calibration.inputs import Reading

TRAINED = "Trained methods"
DATA = "Data"
MASKS = "Masks"

THREADS = "Threads: PyTorch's, or onnxruntime's where models are timed.  [default: their own]"


def _option(flag: str, metavar: str, text: str, panel: str = TRAINED, **words: Any) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, show_default=False, rich_help_panel=panel, **words)


DataOption = Annotated[
    str | None,
    _option(
        "--data",
        "PATH|python:...",
        "Inputs: an .npz, a folder of images or of .npy/.npz shards, or python:package.module:factory.",
        DATA,
    ),
]
SamplesOption = Annotated[
    int | None,
    _option(
        "--samples",
        "N",
        "Inputs that are looked at without training.  [default: up to 2000, fewer for large models]",
        DATA,
    ),
]
CompensateOption = Annotated[
    str | None,
    _option(
        "--compensate",
        "none|bias|lstsq",
        "Without training: what kept weights get for those that go.  [default: the method's own]",
        DATA,
    ),
]
EvalDataOption = Annotated[
    str | None, _option("--eval-data", "PATH|python:...", "Labelled inputs to measure on.", DATA)
]
EvalOption = Annotated[
    str | None, _option("--eval", "accuracy|miou|python:...", "The metric.  [default: accuracy]", DATA)
]
ResizeOption = Annotated[
    str | None, _option("--resize", "W,H", "Size of images, where the model leaves it open.", DATA)
]
MeanOption = Annotated[str | None, _option("--mean", "R,G,B", "Subtracted from pixels in 0..1.", DATA)]
StdOption = Annotated[str | None, _option("--std", "R,G,B", "Pixels are divided by it.", DATA)]

RecipeOption = Annotated[
    str | None,
    _option(
        "--recipe",
        "NAME|FILE",
        "Settings to start from: smart, smart-plus, ... or a TOML file.",
        autocompletion=completing.recipes,
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on from the checkpoint beside OUT.", rich_help_panel=TRAINED)
]
LossOption = Annotated[
    str | None,
    _option(
        "--loss",
        "distill|cross-entropy|mse|layers|python:...",
        "What is trained on; distill needs no labels.",
    ),
]
DistillTempOption = Annotated[float | None, _option("--distill-temp", "T", "Temperature of distillation.")]
PretrainEpochsOption = Annotated[
    float | None, _option("--pretrain-epochs", "E", "Plain training before the search.")
]
WarmupEpochsOption = Annotated[
    float | None, _option("--warmup-epochs", "E", "The learning rate rises over them.")
]
WarmupStepsOption = Annotated[
    int | None, _option("--warmup-steps", "N", "Warm-up in steps; wins over --warmup-epochs.")
]
SearchEpochsOption = Annotated[float | None, _option("--search-epochs", "E", "Masks and weights train.")]
FinetuneEpochsOption = Annotated[
    float | None, _option("--finetune-epochs", "E", "Training once the masks are fixed.")
]
MaxStepsOption = Annotated[int | None, _option("--max-steps", "N", "All phases shrink to N steps at most.")]
BatchSizeOption = Annotated[int | None, _option("--batch-size", "N", "Samples in a step.")]
LrOption = Annotated[float | None, _option("--lr", "X", "Learning rate of the weights.")]
OptimizerOption = Annotated[
    str | None, _option("--optimizer", "adam|adamw|muon|rmsprop|sgd", "Optimiser of the weights.")
]
SchedulerOption = Annotated[
    str | None, _option("--scheduler", "constant|cosine|linear|...", "Learning rate over the training.")
]
MomentumOption = Annotated[float | None, _option("--momentum", "X", "Momentum, or Adam's beta 1.")]
WeightDecayOption = Annotated[float | None, _option("--weight-decay", "X", "Of the weights.")]
GradClipOption = Annotated[float | None, _option("--grad-clip", "X", "Largest gradient norm; 0: no limit.")]
EmaOption = Annotated[float | None, _option("--ema", "X", "Decay of the weights' moving average; 0: none.")]
AugmentOption = Annotated[
    str | None, _option("--augment", "none|light", "light: flips and 2-pixel shifts of images.")
]
AmpOption = Annotated[str | None, _option("--amp", "none|bf16", "Mixed precision.")]
DeviceOption = Annotated[str | None, _option("--device", "auto|cpu|cuda:0", "Where to train.")]
ThreadsOption = Annotated[
    int | None,
    _option(
        "--threads", "N", "Threads: PyTorch's, or onnxruntime's where models are timed.  [default: theirs]"
    ),
]
CheckpointMinutesOption = Annotated[
    float | None, _option("--checkpoint-minutes", "M", "Minutes between checkpoints.")
]

RefitOption = Annotated[
    bool | None,
    typer.Option(
        "--refit/--no-refit",
        help="Once masks are fixed, fit kept weights to the original's activations by least squares.  "
        "[default: no-refit]",
        show_default=False,
        rich_help_panel=TRAINED,
    ),
]
TrainableOption = Annotated[
    str | None,
    _option("--trainable", "all|biases-and-norms", "What trains once masks are fixed.  [default: all]"),
]

MaskLrOption = Annotated[float | None, _option("--mask-lr", "X", "Learning rate of the masks.", MASKS)]
MaskOptimizerOption = Annotated[
    str | None, _option("--mask-optimizer", "adam|...", "Optimiser of the masks.", MASKS)
]
MaskSchedulerOption = Annotated[
    str | None, _option("--mask-scheduler", "constant|cosine|...", "Their learning rate.", MASKS)
]
MaskMomentumOption = Annotated[float | None, _option("--mask-momentum", "X", "Of the masks.", MASKS)]
MaskWeightDecayOption = Annotated[float | None, _option("--mask-weight-decay", "X", "Of the masks.", MASKS)]
InitTempOption = Annotated[float | None, _option("--init-temp", "T", "Temperature at the start.", MASKS)]
FinalTempOption = Annotated[float | None, _option("--final-temp", "T", "Temperature at the end.", MASKS)]
TempUnitOption = Annotated[
    str | None, _option("--temp-unit", "std|raw", "std: in standard deviations of the first masks.", MASKS)
]
TempScheduleOption = Annotated[
    str | None, _option("--temp-schedule", "exp|linear|inverse", "How the temperature falls.", MASKS)
]
MaskEveryOption = Annotated[int | None, _option("--mask-every", "N", "Masks move every N steps.", MASKS)]
MaskInitOption = Annotated[
    str | None,
    _option(
        "--mask-init", "weight|activation|weight-activation|taylor|constant", "Where masks begin.", MASKS
    ),
]
InitFromOption = Annotated[
    str | None,
    _option("--init-from", "reconstruct", "Masks begin with what this method decides untrained.", MASKS),
]
BudgetAnnealOption = Annotated[
    float | None,
    _option(
        "--budget-anneal", "X", "Share of the search in which the budget tightens; 0: as published.", MASKS
    ),
]
RoundsOption = Annotated[
    int | None,
    _option(
        "--rounds", "K", "Prune in K rounds and train between them, over --search-epochs; one shot: 1.", MASKS
    ),
]
SnapOption = Annotated[
    float | None,
    _option("--snap", "X", "Last share of the search, in which whole units meet the budget.", MASKS),
]


def size(given: str | None) -> tuple[int, int] | None:
    """``W,H`` -> ``(W, H)``; one number is both. Raises OptionError."""
    from graphprune.errors import OptionError

    if given is None:
        return None
    parts = given.replace("x", ",").split(",")
    if not (1 <= len(parts) <= 2 and all(p.strip().isascii() and p.strip().isdigit() for p in parts)):
        raise OptionError(f"--resize {given!r} is not understood: write width,height, as 224,224")
    width, height = int(parts[0]), int(parts[-1])
    if not width or not height:
        raise OptionError(f"--resize {given!r}: sizes start at 1")
    return width, height


def numbers(given: str | None, flag: str) -> list[float] | None:
    """``0.5,0.5,0.5`` -> numbers. Raises OptionError."""
    from graphprune.errors import OptionError

    if given is None:
        return None
    try:
        return [float(part) for part in given.split(",")]
    except ValueError:
        raise OptionError(f"{flag} {given!r} is not understood: write numbers, as 0.5,0.5,0.5") from None


def reading(values: Mapping[str, Any], data: str | None) -> Reading | None:
    """``data``, read as the flags say. Raises OptionError."""
    from graphprune.calibration.inputs import Reading

    if data is None:
        return None
    return Reading(
        data,
        batch_size=values.get("batch_size"),
        resize=size(values["resize"]),
        mean=numbers(values["mean"], "--mean"),
        std=numbers(values["std"], "--std"),
    )
