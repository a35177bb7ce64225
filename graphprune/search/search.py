"""A search: masks in a trainable module, from soft to hard, and the way back to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

from graphprune.choosing import PruneOptions, requested_budget
from graphprune.criteria import Criterion
from graphprune.errors import OptionError
from graphprune.fx.importer import Imported
from graphprune.graph import Value
from graphprune.lookup import hint
from graphprune.methods import searching
from graphprune.methods.registry import Source
from graphprune.models import Model, load
from graphprune.modules import rehearsed, with_module
from graphprune.plan import Plan
from graphprune.recipes.recipe import Recipe
from graphprune.recipes.schedules import temperature
from graphprune.results import PruneResult, result_of
from graphprune.running import Feed
from graphprune.search.answers import Objective
from graphprune.search.comparing import compare_module
from graphprune.search.initial import Inputs
from graphprune.search.masking import Masking
from graphprune.search.momentum import Stateful, forget_momentum
from graphprune.search.reconstructing import check_start
from graphprune.search.scoring import Sample
from graphprune.search.starting import score, start
from graphprune.search.structures import Structure, structure_of
from graphprune.search.trained_module import masked_module
from graphprune.writeback import with_tensors

_DECAY = 0.9
"""Of the running mean of ``|w dL/dw|``."""

_FLOORS_EVERY = 20
"""Steps between two looks at which units must stay."""


class Search:
    """Trains masks over a model inside a loop of your own.

    ``module`` is a torch.fx.GraphModule that takes the graph's inputs in order; optimise
    ``parameters()`` on any loss, call ``step()`` after each optimiser step, and ``finish()`` at the end.

    Raises ConversionError for a model that cannot be trained, BudgetError for a budget out of reach.
    """

    def __init__(
        self,
        model: Any,
        example_inputs: Any = None,
        *,
        structure: str = "channel",
        method: str = "smart",
        sparsity: float | None = None,
        params: float | None = None,
        macs: float | None = None,
        max_steps: int = 1000,
        batches: Iterable[Inputs] = (),
        deferred: bool = False,
        **words: Any,
    ) -> None:
        """``words``: fields of Recipe and of PruneOptions, by name. ``example_inputs``: of an ``nn.Module``.

        max_steps: calls of ``step()`` until the masks are hard. batches: inputs for a ``mask_init`` or a method
        that looks at data. deferred: masks stay 1 until ``begin()``.
        """
        if max_steps < 1:
            raise OptionError(f"--max-steps {max_steps}: give a number from 1")
        recipe, options = _sort_words(words)
        self.method = searching(method)
        self.recipe = recipe.completed(self.method.defaults)
        self.max_steps, self.steps = max_steps, 0
        self.samples: Callable[[], list[Sample]] = list
        """Batches for what looks at data; asked again in every round."""
        self.objective: Objective | None = None
        """What a training minimises, for methods that score by its gradients; None: they have losses of their own."""
        self.feeds: Callable[[], list[Feed]] = list
        """Inputs for what needs no gradients (module ``reconstructing``); where there are none, ``samples`` serve."""
        self.curves: dict[str, list[float]] = {}
        """What the method leaves to be plotted."""
        if structure not in self.method.structures:
            known = ", ".join(self.method.structures)
            raise OptionError(f"--method {method} does not serve --structure {structure}: it is for {known}")
        check_start(recipe.init_from, self.method, structure)
        budget = {"sparsity": sparsity, "params": params, "macs": macs}
        self.source: Model = load(model, example_inputs)
        shapes = options.pop("input_shapes", None)
        if self.source.traced is not None and structure == "channel":
            asked = PruneOptions(requested_budget(structure, "", budget), **options)
            self.source = rehearsed(self.source, asked, shapes)
        options["input_shapes"] = self.source.sizes(shapes)
        relative = recipe.temp_unit == "std"

        def masked(imported: Imported) -> Structure:
            return structure_of(structure, self.source, imported, self.method, budget, options, relative)

        self.imported: Imported
        self.structure: Structure
        self.imported, self.original, self.structure = masked_module(
            self.source, options["input_shapes"], masked
        )
        self.module: fx.GraphModule = self.imported.module
        self.masking: Masking = self.structure.masking
        self._stage: int | None = None
        self._share = 0.0
        """How far the budget of the masks has come, from 0 to 1."""
        self.begun = self.finished = False
        if not deferred:
            self.begin(batches)

    def begin(self, batches: Iterable[Inputs] = (), labels: Iterable[torch.Tensor | None] = ()) -> None:
        """Start the search from today's weights; a method in one shot, in one round, fixes its masks here.

        ``batches``: inputs for a data-driven ``mask_init``, or a method that scores by gradients; ``labels``: of
        each batch, where there are any.
        """
        if self.begun:
            raise OptionError("the search has begun already: begin() is for a deferred one, once")
        given = list(batches)
        if given:
            samples = list(zip(given, list(labels) or [None] * len(given), strict=True))
            self.samples = lambda: samples
        start(self)
        self.masking.soften()
        self.begun = True
        if self.searches:
            self._advance()
        else:
            self.harden()

    def parameters(self) -> list[dict[str, Any]]:
        """Parameter groups for any torch optimiser: weights, and mask logits with a rate of their own."""
        groups: list[dict[str, Any]] = [{"params": list(self.weights().values())}]
        if self.masking.parameters():
            groups.append(
                {"params": self.masking.parameters(), "lr": self.recipe.own("mask_lr"), "weight_decay": 0.0}
            )
        return groups

    def weights(self) -> dict[str, nn.Parameter]:
        """The model's own parameters by the names of their ONNX tensors."""
        masks = {id(p) for p in self.masking.parameters()}
        return {
            self.imported.tensors[name]: p
            for name, p in self.module.named_parameters()
            if id(p) not in masks and name in self.imported.tensors
        }

    def step(self, optimizer: Stateful | None = None) -> None:
        """One optimiser step is done: lower the temperature, tighten the budget; hard masks at the end.

        Call it before gradients are cleared: some methods read them. ``optimizer``: of the weights, for methods that
        restart weights without momentum (acdc). Steps before ``begin()`` and after the end train weights alone, and
        change nothing here.
        """
        if self.finished or not self.begun:
            return
        if self.source_of_masks == "gradients":
            self.masking.observe(_DECAY)
        if self.method.box is not None:
            self.masking.clip(*self.method.box)
        self.steps += 1
        if self.steps >= self.max_steps:
            self.harden()
            return
        if self._snaps and self.steps == self._snap_step:
            self.masking.snap()
        elif self.steps % _FLOORS_EVERY == 0:
            self.masking.refresh()
        self._advance(optimizer)

    def harden(self) -> float:
        """Fix the masks now. Returns the share achieved, of what the budget counts."""
        if not self.begun:
            raise OptionError("the search has not begun: call begin() first")
        if not self.finished:
            if self.method.one_shot and self.recipe.own("rounds") > 1:
                score(self)
            self.masking.harden(held_first=self._stage is not None and not self.method.one_shot)
            self.finished = True
        assert self.masking.hard is not None
        return self.masking.hard.achieved

    def finish(self) -> tuple[Plan, fx.GraphModule]:
        """Harden the masks and describe the decision. The module goes on training under hard masks;
        ``result()`` gives the file whenever you are done.

        Raises FidelityError where the smaller model would not equal the masked one.
        """
        self.harden()
        return self.result().plan, self.module

    def result(self) -> PruneResult:
        """The pruned model with today's weights, its plan and proof; ``save(path)`` writes them.

        Raises FidelityError where the file does not compute what the masked module does.
        """
        if not self.finished:
            raise OptionError("the search has not finished: call finish() first")
        weighted = with_tensors(self.source.ir, self.trained())
        pruned = self.structure.write(weighted)
        pruned.plan.fidelity["module"] = self._compare(pruned.model)
        result = result_of(self.source, pruned)
        result.curves = dict(self.curves)
        return with_module(result, self.source)

    def trained(self) -> dict[str, np.ndarray]:
        """Today's tensors by their ONNX names, those that the masks do not change included."""
        state = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        return {
            value: state[attribute].detach().cpu().numpy().astype(np.float32)
            for attribute, value in self.imported.tensors.items()
            if state[attribute].is_floating_point()
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the module's state_dict."""
        return {
            "steps": self.steps,
            "begun": self.begun,
            "finished": self.finished,
            "masking": self.masking.state(),
            "stage": self._stage,
            "curves": self.curves,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what ``state`` gave; the module's state_dict is loaded before."""
        self.steps, self.begun, self.finished = state["steps"], state["begun"], state["finished"]
        self.masking.load(state["masking"])
        self._stage, self.curves = state["stage"], dict(state["curves"])

    def _compare(self, pruned: ir.Model) -> float:
        """Largest relative difference between the masked module and the file. Raises FidelityError."""
        return compare_module(self.module, self.imported, pruned)

    @property
    def temperature(self) -> float:
        """Of the next forward."""
        s = self.recipe
        return temperature(
            self.steps, self.max_steps, s.own("init_temp"), s.own("final_temp"), s.temp_schedule
        )

    @property
    def target_kept(self) -> float:
        """Share of the cost that the budget leaves at this step: it tightens from 1."""
        return 1 - (1.0 if self.finished else self._share) * self.structure.options.budget.requested

    @property
    def training_masks(self) -> bool:
        """Whether the next step trains the masks (``mask_every``)."""
        return not self.finished and self.steps % self.recipe.mask_every == 0

    @property
    def _snap_step(self) -> int:
        return max(1, round(self.max_steps * (1 - self.recipe.own("snap"))))

    @property
    def _snaps(self) -> bool:
        return self.method.learns and self.recipe.own("snap") > 0

    @property
    def source_of_masks(self) -> Source:
        """What units compete with (module ``methods.registry``)."""
        rows = self.structure.options.structure == "nm"
        return (self.method.source_of_rows if rows else None) or self.method.source

    @property
    def searches(self) -> bool:
        """Whether there is anything to train before the masks are hard."""
        return not self.method.one_shot or self.recipe.own("rounds") > 1

    def _advance(self, optimizer: Stateful | None = None) -> None:
        """Set up the masks of the next step."""
        kept = 1 - self.structure.options.budget.requested
        stage = self.method.schedule(self.steps, self.max_steps, self.recipe, kept)
        share = self._share = 1.0 if self._snaps and self.steps >= self._snap_step else stage.share
        if stage.number is None:
            self.masking.advance(self.temperature, share, not self.training_masks)
        elif stage.number != self._stage:
            self._enter(stage.number, share, optimizer)

    def _enter(self, number: int, share: float, optimizer: Stateful | None) -> None:
        """A stage begins: choose masks, and hold them."""
        held = self.masking.held_masks()
        if self.method.restarts and held is not None and not held.all():
            self.masking.restart()
            if optimizer is not None:
                forget_momentum(optimizer)
        if self.method.one_shot and self._stage is not None:
            score(self)
        self.masking.advance(self.temperature, share, held=True)
        self.masking.choose()
        self._stage = number

    def criterion_scores(self, criterion: Criterion) -> np.ndarray:
        """What a criterion says of every unit by today's weights, float ``[size]``. Raises OptionError."""
        return self.structure.criterion_scores(with_tensors(self.source.ir, self.trained()), criterion)

    def read(self, value: Value) -> np.ndarray:
        """Today's data of a stored tensor; of one that the module does not hold, the file's."""
        attribute = {v: k for k, v in self.imported.tensors.items()}.get(value.name)
        if attribute is None:
            return value.array()
        return np.asarray(attrgetter(attribute)(self.module).detach().cpu().numpy())


def _sort_words(words: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Keyword arguments -> recipe of the search, and options for channels. Raises OptionError."""
    of_recipe = {f.name for f in fields(Recipe)} - {"max_steps"}
    of_channels = {f.name for f in fields(PruneOptions)} - {"budget", "method", "structure"}
    for word in words:
        if word not in of_recipe | of_channels:
            raise OptionError(f"unknown option {word!r}: {hint(word, of_recipe | of_channels)}")
    options = {k: v for k, v in words.items() if k in of_channels}
    if isinstance(options.get("ratios"), Mapping):
        options["ratios"] = tuple(options["ratios"].items())
    return Recipe(**{k: v for k, v in words.items() if k in of_recipe}), options
