"""``graphprune analyze``: what a model consists of, and what of it can be pruned."""

from __future__ import annotations

import typer

from . import options, output, paths, sensitivity, sources
from . import training_options as training
from .analyze_tables import show


def analyze(
    ctx: typer.Context,
    model: options.SourceArgument,
    json: options.JsonOption = None,
    html: options.HtmlOption = None,
    force: options.ForceOption = False,
    input_shape: options.InputShapeOption = None,
    attention: options.AttentionOption = options.Attention.heads,
    allow_inexact: options.AllowInexactOption = False,
    nodes: options.NodesOption = False,
    structure: options.StructureOption = "channel",
    block: options.BlockOption = "16x8x1x1",
    nm: options.NmOption = "2:4",
    nm_axis: options.NmAxisOption = "input",
    max_layer_sparsity: options.MaxLayerSparsityOption = 0.98,
    measure: options.SensitivityOption = False,
    ratios: options.RatiosOption = None,
    method: options.MethodOption = None,
    seed: options.SeedOption = 0,
    data: training.DataOption = None,
    eval_data: training.EvalDataOption = None,
    samples: training.SamplesOption = None,
    resize: training.ResizeOption = None,
    mean: training.MeanOption = None,
    std: training.StdOption = None,
) -> None:
    """Show what can be pruned in MODEL, what it costs, and why the rest must stay.

    With --structure block or nm: how many blocks or N:M groups every weight has, and how sparse MODEL can get.
    With --structure branch: the residual branches, and what each holds.
    With --sensitivity: every group is pruned alone, by --method (magnitude, or wanda with --data), and measured:
    accuracy on --eval-data, else how far the outputs move on --data, else on random noise.

    \b
    Examples:
      graphprune analyze model.onnx
      graphprune analyze model.onnx --nodes
      graphprune analyze model.onnx --html model.html
      graphprune analyze model.onnx --sensitivity --data images.npz
      graphprune analyze model.onnx --structure block --block 16x8x1x1
      graphprune analyze model.onnx --input-shape input:1,3,224,224 --json report.json
      graphprune analyze model.onnx --json - | jq .prunable_params
      graphprune analyze package.module:factory --input-shape 1,3,224,224
    """
    paths.check_json_target(json, model, force=force)
    paths.check_html_target(html, model, *paths.named(json), force=force)
    from graphprune import api

    words = sensitivity.words(ctx.params, ctx.obj)
    opened, shapes = sources.open_model(model, input_shape)
    paths.check_unread(opened.ir, *paths.named(json, html))
    analysis = api.analyze(
        opened,
        input_shapes=shapes,
        attention=attention.value,
        allow_inexact=allow_inexact,
        structure=structure,
        block=block,
        nm=nm,
        nm_axis=nm_axis,
        max_layer_sparsity=max_layer_sparsity,
        **words,
    )
    report = analysis.to_dict()
    if json is not None:
        output.data(report, json)
    if html is not None:
        output.page(analysis.to_html(), html, force=force)
    if json != "-":
        show(report, nodes=nodes)
        if html is not None:
            output.text(f"written     {html}")
    for sentence in report["notes"]:
        output.note(sentence)
