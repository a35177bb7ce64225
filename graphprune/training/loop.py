"""One training run: pretraining, search, fine-tuning under hard masks; one step at a time, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphprune.budget import Budget
from graphprune.calibration.inputs import BATCH_SIZE, SAMPLES, feeds_of
from graphprune.contractions import depthwise_weights, output_weights
from graphprune.data.inputs import input_specs
from graphprune.data.samples import Source
from graphprune.errors import Interrupted, OptionError, TrainingError
from graphprune.recipes.recipe import Recipe
from graphprune.recipes.schedules import lr_factor, set_lr
from graphprune.recipes.training import Progress
from graphprune.running import Feed
from graphprune.search.answers import Outputs, every
from graphprune.search.momentum import forget_momentum
from graphprune.search.reconstructing import refit
from graphprune.search.scoring import Sample
from graphprune.search.search import Search
from graphprune.training.augment import draw, move, move_labels
from graphprune.training.averaging import Average
from graphprune.training.batches import TensorBatch, tensors
from graphprune.training.checkpoint import load_checkpoint, save_checkpoint
from graphprune.training.devices import Devices
from graphprune.training.layerwise import observe
from graphprune.training.losses import Loss
from graphprune.training.optimisers import Optimizer, build_optimizer
from graphprune.training.phases import SEARCH, Phases
from graphprune.training.recording import Recording
from graphprune.training.recovery import check_refit, freeze, trainable
from graphprune.training.stopping import Stopping
from graphprune.training.teacher import Teacher

_INITIAL_BATCHES = 4
_STATISTICS_BATCHES = 100


class Training:
    """Trains ``search.module`` by a recipe.

    ``on_step`` is called after every step, ``on_hard`` once the masks are fixed, ``say`` with what the user should
    know. Raises TrainingError for a loss that is not finite or a checkpoint that the disk does not take, and
    Interrupted on Ctrl-C or another signal that ends a process, after the step and with a checkpoint of it where
    ``checkpoint`` names one.
    """

    def __init__(
        self,
        search: Search,
        recipe: Recipe,
        data: Source,
        loss: Loss,
        devices: Devices,
        phases: Phases,
        *,
        checkpoint: Path | None = None,
        on_step: Callable[[Progress], None] | None = None,
        on_hard: Callable[[], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.search, self.recipe, self.data, self.loss, self.devices = search, recipe, data, loss, devices
        self.phases, self.checkpoint = phases, checkpoint
        self.on_step, self.on_hard, self.say = on_step, on_hard, say
        self.step = 0
        """Steps done."""
        self.place = (0, 0)
        """The epoch of the data that comes next, and its batches already used."""
        search.samples, search.feeds = self._first_batches, self._feeds
        if not loss.needs_teacher and not loss.observed:
            search.objective = lambda outputs, labels: loss(outputs, None, labels)
        self.notes: dict[str, Any] = {}
        """Plain data that checkpoints carry along (metrics measured so far)."""
        self.module = search.module
        devices.place(self.module, search.original)
        self.teacher = Teacher(search.original, self._forward)
        graph = search.imported.graph
        self.weights = search.weights()
        self.trainable = trainable(recipe.trainable, self.weights, graph)
        """What trains once the masks are fixed."""
        if recipe.refit:
            check_refit(graph)
        self.optimizer = build_optimizer(
            recipe.optimizer,
            self.weights.items(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            not_matrices={v.name for v in depthwise_weights(graph) | output_weights(graph)},
        )
        self.mask_optimizer: Optimizer | None = None
        if search.masking.parameters():
            self.mask_optimizer = build_optimizer(
                recipe.mask_optimizer,
                [("masks", p) for p in search.masking.parameters()],
                lr=recipe.own("mask_lr"),
                momentum=recipe.mask_momentum,
                weight_decay=recipe.mask_weight_decay,
            )
        self.average = Average(self.module, recipe.ema, search.imported.tensors) if recipe.ema else None
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self._parallel: nn.Module | None = None
        self._undecided = self._kept = 1.0
        self.recording = Recording(phases.total)

    # -- running ----------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go on from the checkpoint. Raises OptionError where it is of another run."""
        assert self.checkpoint is not None
        state = load_checkpoint(self.checkpoint)
        if state["identity"] != self._identity():
            changed = [k for k, v in self._identity().items() if state["identity"].get(k) != v]
            raise OptionError(
                f"{self.checkpoint} is of another run (other {', '.join(changed)}): "
                "give the same settings, or run without --resume"
            )
        self._load(state)

    def run(self) -> None:
        """Train to the end."""
        if self.loss.needs_teacher and self.recipe.augment == "none" and self._worth_remembering:
            self.teacher.remember(self.data, self.recipe.batch_size, self.devices)
        self.module.train()
        last = time.monotonic()
        with Stopping(self.say) as stopping:
            try:
                for batch in self._batches():
                    with stopping.step():
                        self._enter_phase()
                        progress = self._one_step(batch)
                    if self.on_step is not None:
                        self.on_step(progress)
                    if time.monotonic() - last > 60 * self.recipe.checkpoint_minutes:
                        self.save()
                        last = time.monotonic()
                with stopping.step():
                    self._enter_phase()
                with suppress(TrainingError):  # on a full disk the result may still have room
                    self.save()  # should writing the result fail, nothing is trained again
            except KeyboardInterrupt:
                raise Interrupted(self._stopped(stopping.torn), stopping.exit_code) from None
        if self.average is not None:
            self.average.copy_to_module()
        self.module.eval()

    def save(self) -> None:
        """Write the checkpoint, on the first rank. Raises TrainingError."""
        if self.checkpoint is not None and self.devices.first:
            save_checkpoint(self.checkpoint, self._state())

    # -- one step ---------------------------------------------------------------------------------

    def _one_step(self, batch: TensorBatch) -> Progress:
        recipe = self.recipe
        phase = self.phases.at(self.step)
        if recipe.augment == "light":
            batch = self._augmented(batch)
        inputs = self.devices.inputs(batch.inputs)
        labels = None if batch.labels is None else batch.labels.to(self.devices.device)
        teacher = self.teacher(batch, inputs) if self.loss.needs_teacher else None
        set_lr(self.optimizer.param_groups, self._factor(recipe.scheduler))
        with self._autocast():
            outputs = self._forward(self._trained_module(), inputs)
            loss = self.loss(outputs, teacher, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(self._diverged(value))
        self.optimizer.zero_grad()
        if self.mask_optimizer is not None:
            self.mask_optimizer.zero_grad()
        torch.autograd.backward(loss)
        if recipe.grad_clip:
            nn.utils.clip_grad_norm_(self.weights.values(), recipe.grad_clip)
        self.optimizer.step()
        if phase == SEARCH:
            self._step_masks()
        if self.average is not None:
            self.average.update()
        self.step += 1
        self.place = (self.place[0], self.place[1] + 1)
        return self._progress(phase, value)

    def _step_masks(self) -> None:
        search, phases = self.search, self.phases
        if self.mask_optimizer is not None and search.training_masks:
            done = self.step - phases.pretrain
            factor = lr_factor(done, phases.search, 0, self.recipe.mask_scheduler)
            set_lr(self.mask_optimizer.param_groups, factor)
            self.mask_optimizer.step()
        search.step(self.optimizer)

    def _enter_phase(self) -> None:
        """What happens between phases, before the step that follows."""
        phases, search = self.phases, self.search
        if self.step == phases.pretrain and not search.begun:
            search.begin()
            self._parallel = None
        if self.step >= phases.search_end and "hard" not in self.notes:
            achieved = search.harden()
            if self.recipe.refit:
                self._refit()
            self.notes["hard"] = achieved
            freeze(self.weights, self.trainable)
            self._parallel = None
            if not phases.finetune and not self.recipe.refit:
                self._renew_statistics()
            if self.on_hard is not None:
                self.on_hard()
            self.module.train()

    def _refit(self) -> None:
        """Weights jump to their least-squares fit: momentum and averages are of the places where they were.

        Second moments stay: gradients are about as large as before, and without them Adam's first steps would move
        every weight by the whole learning rate.
        """
        refit(self.search)
        forget_momentum(self.optimizer)
        if self.average is not None:
            self.average.restart()

    @torch.no_grad()
    def _renew_statistics(self) -> None:
        """BatchNorm's running statistics under the hard masks, where no fine-tuning will renew them."""
        self.module.train()
        for batch in islice(self._epoch(), _STATISTICS_BATCHES):
            self._forward(self.module, self.devices.inputs(batch.inputs))

    def _forward(self, module: nn.Module, inputs: Outputs) -> Outputs:
        if self.loss.observed:
            return observe(module, self.loss.observed, inputs)
        outputs = module(*inputs)
        return every(outputs)

    def _trained_module(self) -> nn.Module:
        if self._parallel is None:
            self._parallel = self.devices.parallel(self.module)
        return self._parallel

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.recipe.amp == "none":
            return nullcontext()
        return torch.autocast(self.devices.device.type, torch.bfloat16)

    def _factor(self, scheduler: str) -> float:
        return lr_factor(self.step, self.phases.total, self.phases.warmup, scheduler)

    def _progress(self, phase: str, loss: float) -> Progress:
        """What the step that is done leaves to be shown; recorded on the first rank."""
        masking = self.search.masking
        looks = self.recording.looks(self.step) or self.step == self.phases.search_end + 1
        if looks and self.devices.first:
            self._undecided = masking.undecided() if phase == SEARCH else 0.0
            self._kept = masking.kept()
        epoch = self.step / self.phases.epoch if self.phases.epoch else 0.0
        temperature = self.search.temperature if phase == SEARCH else 0.0
        progress = Progress(
            self.step, self.phases.total, phase, epoch, loss, temperature, self._undecided, self._kept
        )
        self.recording.add(progress, self.search.target_kept)
        return progress

    # -- data -------------------------------------------------------------------------------------

    @property
    def _worth_remembering(self) -> bool:
        return self.phases.epoch is not None and self.phases.total - self.step >= self.phases.epoch

    def _batches(self) -> Iterator[TensorBatch]:
        """Batches of the steps that are left: epoch after epoch, without those already used."""
        return islice(self._epochs(), self.phases.total - self.step)

    def _epochs(self) -> Iterator[TensorBatch]:
        while True:
            epoch, used = self.place
            yield from self._epoch(used)
            if self.place == (epoch, 0):
                raise OptionError(f"{self.data.name} gives no batch: it is empty")
            self.place = (epoch + 1, 0)

    def _epoch(self, skip: int = 0) -> Iterator[TensorBatch]:
        batches = self.data.batches(
            self.recipe.batch_size,
            epoch=self.place[0],
            seed=self.recipe.seed,
            rank=self.devices.rank,
            world=self.devices.world,
            skip=skip,
        )
        return map(tensors, batches)

    def _augmented(self, batch: TensorBatch) -> TensorBatch:
        """Images, and with them the classes of their pixels, mirrored and moved."""
        moves = draw(batch.inputs[0].shape[0], self.generator)
        labels = batch.labels
        if labels is not None and labels.ndim == 3 and not labels.is_floating_point():
            labels = move_labels(labels, moves)
        inputs = tuple(move(x, moves) if _is_image(x) else x for x in batch.inputs)
        return TensorBatch(inputs, labels, batch.indices)

    def _first_batches(self) -> list[Sample]:
        """For a data-driven --mask-init and for methods that score by gradients, the same on every rank."""
        batches = self.data.batches(self.recipe.batch_size, epoch=0, seed=self.recipe.seed)
        place = self.devices.device
        return [
            (tuple(x.to(place) for x in b.inputs), None if b.labels is None else b.labels.to(place))
            for b in map(tensors, islice(batches, _INITIAL_BATCHES))
        ]

    def _feeds(self) -> list[Feed]:
        """For --init-from and --refit, the same on every rank and those that ``--method reconstruct`` takes."""
        inputs = input_specs(self.search.source.ir)
        return feeds_of(self.data, inputs, SAMPLES, BATCH_SIZE, self.recipe.seed)

    # -- trouble and checkpoints ------------------------------------------------------------------

    def _diverged(self, value: float) -> str:
        return (
            f"the loss is {value} at step {self.step + 1} of {self.phases.total} "
            f"({self.phases.at(self.step)}): lower --lr or --mask-lr, or look for values that are not "
            f"finite in the data{self._last_checkpoint()}"
        )

    def _last_checkpoint(self) -> str:
        if self.checkpoint is not None and self.checkpoint.exists():
            return f"; the last checkpoint is {self.checkpoint}"
        return ""

    def _stopped(self, torn: bool) -> str:
        """What to tell whoever stopped the training. Writes a checkpoint, but not of a step that is ``torn``."""
        if not torn:
            self.save()
        older = ", which is of an earlier step" if torn else ""
        where = f"; --resume goes on from {self.checkpoint}{older}"
        if self.checkpoint is None or not self.checkpoint.exists():
            where = "; there is no checkpoint yet" if self.checkpoint is not None else ""
        return f"stopped {'in' if torn else 'at'} step {self.step + torn} of {self.phases.total}{where}"

    def _identity(self) -> dict[str, Any]:
        """What must not change between a run and its continuation."""
        options = self.search.structure.options
        return {
            "model": self.search.source.sha256(),
            "data": self.data.name,
            "budget": f"{options.budget.kind} {options.budget.requested}",
            "structure": self.search.structure.name,
            "choice of channels": str(replace(options, budget=Budget("sparsity", 0.0))),
            **{f"--{k.replace('_', '-')}": v for k, v in vars(self.recipe).items() if k in _IDENTITY},
        }

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self._identity(),
            "position": (self.step, *self.place),
            "module": self.module.state_dict(),
            "search": self.search.state(),
            "optimizer": self.optimizer.state_dict(),
            "mask_optimizer": None if self.mask_optimizer is None else self.mask_optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": torch.get_rng_state(),
            "generator": self.generator.get_state(),
            "notes": self.notes,
            "recording": self.recording.state,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.step, *place = state["position"]
        self.place = (place[0], place[1])
        self.module.load_state_dict(state["module"])
        self.search.load(state["search"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.mask_optimizer is not None:
            self.mask_optimizer.load_state_dict(state["mask_optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])
        self.generator.set_state(state["generator"])
        self.notes = dict(state["notes"])
        self.recording.load(state["recording"])
        if "hard" in self.notes:
            freeze(self.weights, self.trainable)


_IDENTITY = frozenset(vars(Recipe()).keys()) - {"device", "threads", "checkpoint_minutes"}


def _is_image(x: torch.Tensor) -> bool:
    return x.ndim == 4 and x.is_floating_point()
