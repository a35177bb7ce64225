"""``graphprune compare``: two models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options, output, paths
from . import training_options as training
from .output import Column, plural

if TYPE_CHECKING:
    from .watching import Watching

FirstArgument = Annotated[Path, typer.Argument(metavar="A", help="An .onnx file.", show_default=False)]
SecondArgument = Annotated[Path, typer.Argument(metavar="B", help="Another one.", show_default=False)]
NoLatencyOption = Annotated[bool, typer.Option("--no-latency", help="Do not time the models.")]


def compare(
    ctx: typer.Context,
    first: FirstArgument,
    second: SecondArgument,
    data: training.DataOption = None,
    eval_data: training.EvalDataOption = None,
    samples: training.SamplesOption = None,
    resize: training.ResizeOption = None,
    mean: training.MeanOption = None,
    std: training.StdOption = None,
    input_shape: options.InputShapeOption = None,
    seed: options.SeedOption = 0,
    no_latency: NoLatencyOption = False,
    threads: options.EngineThreadsOption = None,
    json: options.JsonOption = None,
    html: options.HtmlOption = None,
    force: options.ForceOption = False,
) -> None:
    """Compare what two models that take the same inputs compute, and what they cost.

    Outputs on --data (else on the inputs of --eval-data, else on random noise): the largest and the mean difference,
    absolute and relative to A's values, the cosine, and for classifiers how often both name the same class. Accuracy
    on --eval-data. Parameters, MACs, bytes, latency in onnxruntime. Inputs and outputs are matched by name, then by
    position.

    \b
    Examples:
      graphprune compare model.onnx small.onnx
      graphprune compare model.onnx small.onnx --data photos/ --resize 224,224
      graphprune compare model.onnx small.onnx --eval-data labelled.npz --json - | jq .metric
    """
    shapes = options.input_shapes(input_shape)
    paths.check_json_target(json, first, second, force=force)
    paths.check_html_target(html, first, second, *paths.named(json), force=force)
    from graphprune import api
    from graphprune.comparing import compare as run
    from graphprune.engine import Engine

    models = api.load(first), api.load(second)
    for model in models:
        paths.check_unread(model.ir, *paths.named(json, html))
    watching: Watching = ctx.obj
    comparison = run(
        *models,
        data=training.reading(ctx.params, data),
        eval_data=training.reading(ctx.params, eval_data),
        samples=samples,
        input_shapes=shapes,
        seed=seed,
        latency=not no_latency,
        engine=Engine(threads or 0, cache=False),
        progress=watching.count,
    )
    found = comparison.to_dict()
    if json is not None:
        output.data(found, json)
    if html is not None:
        output.page(comparison.to_html(), html, force=force)
    if json != "-":
        show(found)
        if html is not None:
            output.text(f"written  {html}")
    for sentence in found["notes"]:
        output.note(sentence)


def show(found: Mapping[str, Any]) -> None:
    """The tables for people; ``found`` is what --json prints."""
    from graphprune.comparing.figures import difference_rows, summary_rows

    output.table(
        f"{Path(found['first']).name} and {Path(found['second']).name}",
        [Column(""), *(Column(title, right=True) for title in ("A", "B", "B of A"))],
        summary_rows(found),
    )
    inputs = "random noise" if found["inputs"] == "noise" else "data"
    titles = ("max abs", "mean abs", "max rel", "mean rel", "cosine", "top-1", "not finite")
    output.table(
        f"Outputs, on {plural(found['samples'], 'sample')} of {inputs}",
        [Column("output", flexible=True), *(Column(title, right=True) for title in titles)],
        difference_rows(found),
    )
