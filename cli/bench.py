"""``graphprune bench``: how long models take in onnxruntime, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options, output, paths
from .output import Column, number

if TYPE_CHECKING:
    from graphprune.latency import Bench, Benched
    from graphprune.latency.layers import LayerTime
    from graphprune.latency.multiples import Multiples

    from .watching import Watching


ModelsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL", help=".onnx files; the others are compared with the first.", show_default=False
    ),
]
RunsOption = Annotated[
    int | None,
    typer.Option("--runs", metavar="N", min=1, help="Runs of every model.  [default: as --seconds says]"),
]
SecondsOption = Annotated[
    float, typer.Option("--seconds", metavar="S", help="Time for all runs together, at least 20 of each.")
]
BatchOption = Annotated[
    int | None,
    typer.Option("--batch", metavar="N", min=1, help="Samples in a batch, where the model leaves it open."),
]
TopOption = Annotated[int, typer.Option("--top", metavar="N", min=0, help="Operators to list.")]
ProfileOption = Annotated[
    bool,
    typer.Option("--profile/--no-profile", help="Also measure every operator, and peak memory."),
]
MultiplesOption = Annotated[
    bool,
    typer.Option(
        "--multiples",
        help="Also measure which channel counts this onnxruntime runs well; prune --latency keeps to them.",
    ),
]


def bench(
    ctx: typer.Context,
    models: ModelsArgument,
    runs: RunsOption = None,
    seconds: SecondsOption = 3.0,
    batch: BatchOption = None,
    input_shape: options.InputShapeOption = None,
    threads: options.EngineThreadsOption = None,
    provider: options.ProviderOption = None,
    top: TopOption = 15,
    profile: ProfileOption = True,
    multiples: MultiplesOption = False,
    no_cache: options.NoCacheOption = False,
    json: options.JsonOption = None,
    force: options.ForceOption = False,
) -> None:
    """Time models in onnxruntime, side by side, warmed up, taking turns: medians, spread, size, memory, layers.

    Times are on the wall; half of the runs lie between the quartiles. The ratio to the first model is the median over
    turns with its 95 % confidence interval. Operators of a pruned model go by the original's names where its plan lies
    beside it.

    \b
    Examples:
      graphprune bench model.onnx
      graphprune bench model.onnx small.onnx --threads 1
      graphprune bench model.onnx small.onnx --batch 8 --runs 200 --json bench.json
    """
    shapes = options.input_shapes(input_shape)
    paths.check_json_target(json, *models, force=force)
    from graphprune.engine import Engine
    from graphprune.errors import OptionError
    from graphprune.latency import Turns
    from graphprune.latency import bench as measure
    from graphprune.latency.multiples import measure_multiples

    if not seconds > 0:
        raise OptionError(f"--seconds {seconds:g}: give a time above 0")
    engine = Engine(threads or 0, provider or "CPU", cache=not no_cache)
    watching: Watching = ctx.obj
    found = measure(
        *models,
        engine=engine,
        turns=Turns(runs, seconds),
        batch=batch,
        input_shapes=shapes,
        profile=profile,
        progress=watching.count,
    )
    rewarded = measure_multiples(engine, progress=watching.count) if multiples else None
    if json is not None:
        more = {} if rewarded is None else {"multiples": rewarded.to_dict()}
        output.data(found.to_dict() | more, json)
    if json != "-":
        show(found, top, rewarded)
    for sentence in found.notes:
        output.note(sentence)


def show(found: Bench, top: int, rewarded: Multiples | None = None) -> None:
    """The tables for people; --json has every operator."""
    engine = found.engine
    threads = (
        "threads as onnxruntime chooses" if not engine.threads else output.plural(engine.threads, "thread")
    )
    output.facts(
        [
            ("machine", f"{engine.to_dict()['machine']}, {threads}"),
            ("onnxruntime", f"{engine.to_dict()['onnxruntime']}, {engine.provider}"),
            ("inputs", ", ".join(f"{name} {sizes}" for name, sizes in found.inputs.items())),
            ("runs", f"{found.turns} of each, taking turns"),
        ]
    )
    output.table(
        "Latency",
        [
            Column("model", flexible=True),
            *(Column(t, right=True) for t in ("median", "quartiles", "10-90 %", "ratio", "file", "memory")),
        ],
        [_row(m) for m in found.models],
    )
    names = [Path(m.name).name for m in found.models]
    _layers("Where the time goes, by operator type", found.operators, names, len(found.operators))
    _layers("Where the time goes, by operator", found.layers, names, top)
    if rewarded is not None:
        output.table(
            "Time for a multiply-accumulate, over that at multiples of half the width",
            [Column("multiples of"), *(Column(f"from {w}", right=True) for w in rewarded.widths)],
            [(str(m), *(f"{x:.2f}" for x in row)) for m, row in rewarded.rows()],
        )
        output.text()
        output.facts([("multiples", rewarded.sentence())])


def _row(model: Benched) -> tuple[str, ...]:
    s, r = model.seconds, model.ratio
    shown = "1" if r is None else f"{r.value:.3f} ({r.low:.3f}-{r.high:.3f})"
    memory = "-" if model.memory is None else f"{number(model.memory['peak'])}B"
    return (
        Path(model.name).name,
        f"{_ms(s.median)} ms",
        f"{_ms(s.q25)}-{_ms(s.q75)}",
        f"{_ms(s.p10)}-{_ms(s.p90)}",
        shown,
        f"{number(model.bytes)}B",
        memory,
    )


def _layers(title: str, rows: tuple[LayerTime, ...], names: list[str], top: int) -> None:
    """Those that take or save most first."""
    ordered = sorted(rows, key=lambda row: -max((s or 0.0 for s in row.seconds), default=0.0))[:top]
    whole = [sum(row.seconds[i] or 0.0 for row in rows) or 1.0 for i in range(len(names))]
    columns = [Column("operator", flexible=True), Column("kernel")]
    columns += [Column(f"{name}, ms", right=True, flexible=True) for name in names]
    columns += [Column("of all", right=True)]
    output.table(
        title,
        columns,
        [
            (
                row.name,
                row.op,
                *("-" if s is None else _ms(s) for s in row.seconds),
                output.percent(row.seconds[0] or 0.0, whole[0]),
            )
            for row in ordered
        ],
    )


def _ms(seconds: float) -> str:
    """Three significant digits."""
    ms = 1000 * seconds
    return f"{ms:.{2 if ms < 9.995 else 1 if ms < 99.95 else 0}f}" if ms >= 0.995 else f"{ms:.3f}"
