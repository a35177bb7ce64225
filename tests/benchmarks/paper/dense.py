"""Trains the networks that are pruned, once each: ``python -m tests.benchmarks.paper dense``.

One cycle of the learning rate, the task's loss and augmentation, weight decay on matrices only. A checkpoint after
every epoch; the trained network is written as ONNX, and its figures go to results/dense.jsonl.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import nn

from graphprune.python_functions import PREFIX, import_function
from graphprune.search.answers import every
from graphprune.search.class_labels import counted, cross_entropy
from graphprune.training.augment import draw, move, move_labels
from graphprune.training.metrics import find_metric
from sample_models.export import export_module
from tests.benchmarks.paper.networks import Network
from tests.benchmarks.paper.store import CACHE, RESULTS, append
from tests.benchmarks.paper.tasks import Task
from tests.benchmarks.trained import machine, short_commit

WARMUP = 0.15
"""Share of the steps in which the learning rate rises."""

CLIP = 5.0
"""Largest norm of a gradient."""

Loss = Callable[[tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


def train(network: Network, seed: int = 0) -> None:
    """Write ``network.path`` and its row; goes on from the last epoch of an earlier try."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    start = time.perf_counter()
    run = Run(network, seed)
    while run.epoch < network.epochs:
        mean_loss = run.one_epoch()
        seconds = run.earlier + time.perf_counter() - start
        print(network.name, f"epoch {run.epoch} loss {mean_loss:.3f} {seconds:.0f} s", flush=True)
        run.save(seconds)
    module = run.module.cpu().eval()
    row = {
        "network": network.name,
        "parameters": sum(p.numel() for p in module.parameters()),
        "epochs": network.epochs,
        "seed": seed,
        "validation": round(measure(network.task, module, "validation"), 5),
        "test": round(measure(network.task, module, "test"), 5),
        "amp": network.precision,
        "seconds": round(run.earlier + time.perf_counter() - start),
        "commit": short_commit(),
        "machine": f"{machine()} {run.device.type}",
        "date": date.today().isoformat(),
        "command": f"python -m tests.benchmarks.paper dense --networks {network.name}",
    }
    export(network, module, network.path)
    append(RESULTS / "dense.jsonl", row)
    run.checkpoint.unlink()


class Run:
    """One training, epoch by epoch. ``epoch``: those done. ``earlier``: seconds of earlier tries."""

    def __init__(self, network: Network, seed: int) -> None:
        assert network.build is not None
        self.network, self.seed = network, seed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = network.build().to(self.device)
        self.data = Images(network.task, "train")
        self.loss_of = _loss(network.task)
        self.bf16 = network.precision == "bf16"
        self.optimizer = _optimizer(network, self.module)
        self.epoch, self.earlier = 0, 0.0
        self.checkpoint = CACHE / "dense" / f"{network.name}.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.earlier = state["epochs"], state["seconds"]

    def one_epoch(self) -> float:
        """Train for an epoch; the mean of its losses."""
        steps = len(self.data.x) // self.data.batch
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        order = torch.randperm(len(self.data.x), generator=generator)
        self.module.train()
        total = 0.0
        for step, picked in enumerate(order.split(self.data.batch)[:steps]):
            done = self.epoch * steps + step
            for group in self.optimizer.param_groups:
                group["lr"] = _rate(done, self.network.epochs * steps, self.network.lr)
            total += self._step(*self.data.take(picked, generator))
        self.epoch += 1
        return total / steps

    def _step(self, x: torch.Tensor, y: torch.Tensor) -> float:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.loss_of(every(self.module(x.to(self.device))), y.to(self.device))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.module.parameters(), CLIP)
        self.optimizer.step()
        return float(loss.detach())

    def save(self, seconds: float) -> None:
        """Write the checkpoint."""
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "epochs": self.epoch, "seconds": seconds}, self.checkpoint)


def export(network: Network, module: nn.Module, path: Path) -> None:
    """The module as ONNX."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.onnx")
    export_module(module, unfinished, torch.zeros(2, *network.task.shape), network.outputs)
    unfinished.replace(path)


@torch.inference_mode()
def measure(task: Task, module: nn.Module, split: str) -> float:
    """The task's metric."""
    data = Images(task, split)
    metric = find_metric(task.metric)
    for i in range(0, len(data.x), data.batch):
        picked = torch.arange(i, min(i + data.batch, len(data.x)))
        x, y = data.take(picked)
        metric.update(every(module(x)), y)
    return metric.value()


class Images:
    """A split of a task in memory."""

    def __init__(self, task: Task, split: str) -> None:
        with np.load(task.files()[split]) as stored:
            self.x = torch.from_numpy(stored["input"])
            self.y = torch.from_numpy(stored["labels"])
            self.mean, self.std = (torch.from_numpy(stored[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
        self.batch = int(task.recipe["batch_size"])
        self.light = task.recipe["augment"] == "light"

    def take(
        self, picked: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images and labels; augmented where there is a generator and the task says so."""
        x, y = ((self.x[picked].float() / 255) - self.mean) / self.std, self.y[picked]
        if generator is not None and self.light:
            moves = draw(len(x), generator)
            x = move(x, moves)
            y = move_labels(y, moves) if y.ndim == 3 else y
        return x.contiguous(memory_format=torch.channels_last), y


def _loss(task: Task) -> Loss:
    name = task.recipe["loss"]
    if name.startswith(PREFIX):
        function = import_function(name, "--loss")
        return lambda outputs, y: function(outputs, y)
    return lambda outputs, y: cross_entropy(outputs[0].float(), counted(y, outputs[0].shape[1]))


def _optimizer(network: Network, module: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": network.decay}, {"params": rest, "weight_decay": 0.0}]
    if network.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=network.lr)
    return torch.optim.SGD(groups, lr=network.lr, momentum=0.9, nesterov=True)


def _rate(step: int, total: int, peak: float) -> float:
    rise = WARMUP * total
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))
