"""Every argument and option, once: the same flag means the same thing in every command."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from . import completing


class Attention(StrEnum):
    """What goes from multi-head attention."""

    heads = "heads"
    width = "width"
    both = "both"


class Allocation(StrEnum):
    """How the budget is spread over the groups."""

    everywhere = "global"
    uniform = "uniform"
    erk = "erk"
    lamp = "lamp"
    pq = "pq"
    precrop = "precrop"
    rate_distortion = "rate-distortion"
    cosine = "cosine"


ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.", show_default=False)]
SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="The .onnx file, or package.module:factory, a function that returns an nn.Module.",
        show_default=False,
    ),
]
OriginalArgument = Annotated[
    Path, typer.Argument(metavar="ORIGINAL", help="The .onnx file before pruning.", show_default=False)
]
PrunedArgument = Annotated[
    Path, typer.Argument(metavar="PRUNED", help="The .onnx file that prune wrote.", show_default=False)
]

JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE|-", help="Write JSON to a file; '-' prints nothing else to stdout."),
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write a report with charts and the coupling graph: one file that opens offline.",
        show_default=False,
    ),
]
InputShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="NAME:1,3,224,224",
        help="Sizes of an input whose axes are dynamic (else guessed, and said so). A factory's module: 1,3,224,224. "
        "Repeatable.",
    ),
]
AttentionOption = Annotated[
    Attention,
    typer.Option(
        "--attention", help="Cut multi-head attention by whole heads, by width in every head, or by both."
    ),
]
AllowInexactOption = Annotated[
    bool,
    typer.Option(
        "--allow-inexact",
        help="Also prune through LayerNorm, GroupNorm, LRN: their statistics then change, and are named.",
    ),
]
SensitivityOption = Annotated[
    bool,
    typer.Option(
        "--sensitivity", help="Prune every group alone at a few ratios, and measure what that does."
    ),
]
RatiosOption = Annotated[
    str | None,
    typer.Option(
        "--ratios",
        metavar="A,B,...",
        help="For --sensitivity: shares of a group's filters.  [default: 0.1,0.3,0.5]",
        show_default=False,
    ),
]
NodesOption = Annotated[bool, typer.Option("--nodes", help="List every node with its parameters and MACs.")]

OutOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="The file to write.  [default: MODEL.pruned.onnx; of rewrite: MODEL.rewritten.onnx; of report: PLAN.html]",
        show_default=False,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist already.")]
StructureOption = Annotated[
    str,
    typer.Option(
        "--structure",
        metavar="channel|block|nm|branch",
        help="channel: remove whole channels. block: zero weights in blocks. nm: keep N of every M weights. "
        "branch: remove whole residual branches.",
        autocompletion=completing.structures,
    ),
]
BlockOption = Annotated[
    str,
    typer.Option(
        "--block",
        metavar="OxIxKhxKw",
        help="For --structure block: outputs x inputs x kernel of a block; -1 is a whole axis.",
    ),
]
NmOption = Annotated[
    str,
    typer.Option("--nm", metavar="N:M", help="For --structure nm: N of every M consecutive weights stay."),
]
NmAxisOption = Annotated[
    str,
    typer.Option(
        "--nm-axis",
        metavar="input|output",
        help="For --structure nm: the channels along which the M weights follow one another.",
        autocompletion=completing.axes,
    ),
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="dense-zeros|compact|sparse-initializer",
        help="How the file stores weights with blocks or N:M patterns; README, File formats, compares them.",
        autocompletion=completing.formats,
    ),
]
_TARGET = typer.Option(
    "--target",
    metavar="NAME|FILE.toml",
    help="An accelerator: npu-16x8, tensorrt-2to4, cpu-ort, or a TOML file that describes another.",
    autocompletion=completing.targets,
    show_default=False,
)
TargetOption = Annotated[str | None, _TARGET]
RequiredTarget = Annotated[str, _TARGET]
MaxLayerSparsityOption = Annotated[
    float,
    typer.Option(
        "--max-layer-sparsity",
        metavar="S",
        help="For --structure block: the largest share any weight may lose.",
    ),
]
SparsityOption = Annotated[
    float | None,
    typer.Option(
        "--sparsity",
        metavar="S",
        help="Budget: share of the prunable channels or residual branches to remove, or of the weights to zero in "
        "blocks.",
    ),
]
ParamsOption = Annotated[
    float | None,
    typer.Option("--params", metavar="P", help="Budget: share of the model's parameters to remove."),
]
MacsOption = Annotated[
    float | None,
    typer.Option("--macs", metavar="M", help="Budget: share of the model's multiply-adds to remove."),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="What decides. From weights: magnitude, ... From inputs: reconstruct, wanda, ... Trained: smart, ... "
        "graphprune methods lists them.",
        show_default=False,
        autocompletion=completing.methods,
    ),
]
AllocationOption = Annotated[
    Allocation | None,
    typer.Option(
        "--allocation",
        help="uniform: the same share everywhere; global: by rank over the model; erk, lamp, pq, precrop: as "
        "published; with --data also rate-distortion (measured) and cosine.  [default: the method's own]",
        show_default=False,
    ),
]
MultipleOfOption = Annotated[
    str,
    typer.Option(
        "--multiple-of",
        metavar="auto|N",
        help="Keep channel counts a multiple of N; auto: 16 in groups of 64 or more, 8 from 32, else free; with "
        "--latency as measured.",
    ),
]
MinChannelsOption = Annotated[
    int, typer.Option("--min-channels", metavar="N", min=1, help="Leave at least N channels everywhere.")
]
RatioOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ratio",
        metavar="PATTERN=0.3",
        help="Fix the share to remove for groups with a matching name. Repeatable.",
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="Prune only groups with a matching name. Repeatable."),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Leave groups with a matching name whole. Repeatable."),
]
LatencyOption = Annotated[
    float | None,
    typer.Option(
        "--latency",
        metavar="L",
        help="Budget: the share of the model's latency in onnxruntime on this machine that may stay.",
    ),
]
EngineThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="Threads: PyTorch's, or onnxruntime's where models are timed.  [default: theirs]",
    ),
]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider", metavar="NAME", help="onnxruntime's execution provider for latency.  [default: CPU]"
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option("--no-cache", help="Neither read nor keep what was measured of this machine before."),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of methods that draw.")]
PlanOption = Annotated[
    Path | None,
    typer.Option(
        "--plan", metavar="FILE", help="The plan, where it is not beside PRUNED.", show_default=False
    ),
]


def input_shapes(given: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """``name:1,3,224,224`` -> ``{name: (1, 3, 224, 224)}``. Raises OptionError."""
    from graphprune.errors import OptionError

    found: dict[str, tuple[int, ...]] = {}
    for entry in given or ():
        name, colon, sizes = entry.rpartition(":")
        parts = sizes.split(",")
        if not (colon and name and all(p.strip().isascii() and p.strip().isdigit() for p in parts)):
            raise OptionError(f"--input-shape {entry!r} is not understood: write name:1,3,224,224")
        shape = tuple(int(p) for p in parts)
        if 0 in shape:
            raise OptionError(f"--input-shape {entry!r}: sizes start at 1")
        if name in found:
            raise OptionError(f"--input-shape names input {name!r} twice: give its sizes once")
        found[name] = shape
    return found


def plain_shapes(given: Sequence[str] | None) -> list[tuple[int, ...]]:
    """``1,3,224,224``, in the order of a module's inputs, names left out. Raises OptionError."""
    from graphprune.errors import OptionError

    found = []
    for entry in given or ():
        parts = entry.rpartition(":")[2].split(",")
        if not all(p.strip().isascii() and p.strip().isdigit() and int(p) for p in parts):
            raise OptionError(f"--input-shape {entry!r} is not understood: write 1,3,224,224")
        found.append(tuple(int(p) for p in parts))
    return found


def ratios(given: Sequence[str] | None) -> dict[str, float]:
    """``PATTERN=0.3`` -> ``{PATTERN: 0.3}``. Raises OptionError."""
    from graphprune.errors import OptionError

    found: dict[str, float] = {}
    for entry in given or ():
        pattern, _, share = entry.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not pattern or not 0 <= value < 1:
            raise OptionError(
                f"--ratio {entry!r} is not understood: write PATTERN=0.3, a share from 0 to below 1"
            )
        if pattern in found:
            raise OptionError(f"--ratio names {pattern!r} twice: give one share")
        found[pattern] = value
    return found


def multiple_of(given: str) -> int | None:
    """``auto`` -> None, ``8`` -> 8. Raises OptionError."""
    from graphprune.errors import OptionError

    if given == "auto":
        return None
    if not (given.isascii() and given.isdigit()) or int(given) < 1:
        raise OptionError(f"--multiple-of {given!r} is not understood: give auto or a number from 1")
    return int(given)
