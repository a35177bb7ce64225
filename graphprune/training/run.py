"""``prune`` with a trained method: data -> search -> fine-tuning -> the pruned file, with metrics on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from graphprune.data.inputs import input_specs
from graphprune.data.opening import open_data
from graphprune.data.samples import InputSpec, Source
from graphprune.errors import DataError, OptionError
from graphprune.fx.importer import accepts_batches
from graphprune.models import Model, load
from graphprune.recipes.recipe import Recipe
from graphprune.recipes.training import TrainingOptions
from graphprune.results import PruneResult
from graphprune.search.search import Search
from graphprune.training.devices import Devices, devices
from graphprune.training.evaluating import evaluate
from graphprune.training.loop import Training
from graphprune.training.losses import find_loss
from graphprune.training.metrics import find_metric
from graphprune.training.phases import phases_of
from graphprune.training.recovery import training_share

BEFORE, HARDENED, FINETUNED = "before", "after hardening", "after fine-tuning"


def train(source: Any, options: TrainingOptions, **words: Any) -> PruneResult:
    """Search masks, fine-tune, and prune. ``words`` are those of Search (structure, method, budget, ...).

    Under torchrun every rank returns; only the first one's result is to be written. Raises DataError,
    OptionError, BudgetError, ConversionError, TrainingError, Interrupted, FidelityError.
    """
    model = load(source)
    recipe = options.recipe
    with devices(recipe.device, recipe.threads) as place:
        torch.manual_seed(recipe.seed)
        return _Run(model, options, place, words).train()


class _Run:
    def __init__(self, model: Model, options: TrainingOptions, place: Devices, words: dict[str, Any]) -> None:
        self.options, self.place = options, place
        self.watcher = options.watcher if place.first else None
        recipe = options.recipe
        inputs = input_specs(model.ir)
        self.data = self._open(options.data, inputs, "train")
        self.eval_data = None
        if options.eval_data is not None:
            self.eval_data = self._open(options.eval_data, inputs, "eval")
        elif options.eval is not None:
            raise OptionError("--eval needs --eval-data: labelled samples to measure on")
        self.metric_name = options.eval or "accuracy"
        find_metric(self.metric_name)
        shapes = {name: (1, *shape) for name, shape in self.data.shape().items()}
        shapes |= words.pop("input_shapes", None) or {}
        self.search = Search(
            model,
            deferred=True,
            input_shapes=shapes,
            **words,
            **{k: v for k, v in vars(recipe).items() if k != "max_steps"},
        )
        self.recipe = self._fitting_batches(recipe.completed(self.search.method.defaults))
        self.loss = find_loss(
            recipe.loss, self.search.imported.graph, recipe.distill_temp, self.search.imported.nodes
        )
        if self.loss.needs_labels and not self.data.labelled:
            raise DataError(
                f"--loss {recipe.loss} needs labels, and {options.data} has none: use --loss distill"
            )
        self.metrics: dict[str, float] = {}

    def train(self) -> PruneResult:
        length = self.data.length(self.recipe.batch_size)
        phases = phases_of(self.recipe, length, searches=self.search.searches)
        self.search.max_steps = max(phases.search, 1)
        training = Training(
            self.search,
            self.recipe,
            self.data,
            self.loss,
            self.place,
            phases,
            checkpoint=self.options.checkpoint,
            on_step=None if self.watcher is None else self.watcher.step,
            on_hard=lambda: self._measure(HARDENED),
            say=None if self.watcher is None else self.watcher.note,
        )
        if self.recipe.trainable != "all" and self.watcher is not None:
            self.watcher.note(training_share(training.weights, training.trainable, self.recipe.trainable))
        if self.options.resume:
            training.resume()
            self.metrics |= training.notes.get("metrics", {})
            for when, value in self.metrics.items():
                self._say(when, value)
        else:
            self._measure(BEFORE)
        training.notes["metrics"] = self.metrics
        training.run()
        self._measure(FINETUNED)
        return replace(
            self.search.result(), metrics=dict(self.metrics), training=dict(training.recording.state["rows"])
        )

    def _measure(self, when: str) -> None:
        if self.eval_data is None or not self.place.first or when in self.metrics:
            return
        module = self.search.original if when == BEFORE else self.search.module
        value = evaluate(
            module,
            self.eval_data,
            find_metric(self.metric_name),
            self.recipe.batch_size,
            self.place,
        )
        self.metrics[when] = value
        self._say(when, value)

    def _say(self, when: str, value: float) -> None:
        if self.watcher is not None:
            self.watcher.metric(when, self.metric_name, value)

    def _fitting_batches(self, recipe: Recipe) -> Recipe:
        """A file that runs at one batch size only is trained at that one."""
        imported = self.search.imported
        if accepts_batches(imported) or imported.batch.fixed is None:
            return recipe
        if self.watcher is not None:
            self.watcher.note(
                f"the file computes batches of {imported.batch.fixed} only: --batch-size is "
                f"{imported.batch.fixed} (export it with a dynamic batch axis to train faster)"
            )
        return replace(recipe, batch_size=imported.batch.fixed)

    def _open(self, spec: str, inputs: list[InputSpec], which: str) -> Source:
        options = self.options
        return open_data(spec, inputs, which=which, resize=options.resize, mean=options.mean, std=options.std)
