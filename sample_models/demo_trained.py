"""``make demo``, second part: the same ResNet-20 at 50 % of its channels, with masks that are trained.

    python -m sample_models.demo_trained

SMART with distillation on a few unlabelled training images: the original network is the teacher.
"""

import os
import tempfile
import time
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

import graphprune
from graphprune import PruneResult, Recipe, TrainingOptions
from graphprune.recipes.recipe import read_recipe
from graphprune_cli.watching import Watching
from sample_models.demo import IMAGES, MODEL, Row, accuracy, evaluation_slice, prune_to, render
from sample_models.training_images import COUNT, decode

SHARE = 0.5
RECIPE = "smart-plus"
SETTINGS = {
    "search_epochs": 10,
    "finetune_epochs": 15,
    "batch_size": 64,
    "threads": min(2, os.cpu_count() or 1),
}
"""Few images, many epochs; chosen by the accuracy on other training images, not on the test slice."""


def train(data: Path, settings: Mapping[str, int]) -> PruneResult:
    """Train masks on ``data``, and measure on the test slice after hardening and after fine-tuning."""
    recipe = Recipe(**(read_recipe(RECIPE, typing.get_type_hints(Recipe)) | dict(settings)))
    with Watching() as watching:
        return graphprune.prune(
            MODEL,
            method="smart",
            sparsity=SHARE,
            multiple_of=1,
            training=TrainingOptions(str(data), recipe, eval_data=str(IMAGES), watcher=watching),
        )


def main(settings: Mapping[str, int] = SETTINGS) -> None:
    """Print the table."""
    start = time.perf_counter()
    console = Console(highlight=False)
    images, labels = evaluation_slice(IMAGES)
    cost = graphprune.analyze(MODEL).cost
    rows = [Row("original", cost.total_params, cost.total_macs, accuracy(MODEL, images, labels), None)]
    with tempfile.TemporaryDirectory(prefix="graphprune-demo-") as name:
        folder = Path(name)
        rows.append(replace(prune_to(SHARE, folder, images, labels), what="magnitude, one shot"))
        result = train(decode(folder / "train.npz"), settings)
        plan, path = result.plan, result.save(folder / "smart.onnx")
        after, macs = plan.params["after"], plan.macs["after"]
        rows.append(Row("SMART, masks hardened", after, macs, result.metrics["after hardening"], None))
        tuned = accuracy(path, images, labels)
        rows.append(Row("SMART, fine-tuned", after, macs, tuned, result.fidelity.max_rel_diff))
    title = f"ResNet-20 on CIFAR-10, {SHARE:.0%} of channels removed ({len(labels)} test images)"
    console.print(render(rows, title))
    console.print(
        f"SMART trained masks and weights on {COUNT:,} images without labels, towards the original's outputs\n"
        f"(recipe {RECIPE}, more epochs). With all of your data it comes closer.",
        soft_wrap=True,
    )
    console.print(f"{time.perf_counter() - start:.0f} s; the files were temporary")


if __name__ == "__main__":
    main()
