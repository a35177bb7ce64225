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
from torch.nn import functional as F

from graphprune.python_functions import PREFIX, import_function
from graphprune.training.augment import draw, move, move_labels
from graphprune.training.metrics import find_metric
from sample_models.export import export_module
from tests.benchmarks.paper.networks import Network
from tests.benchmarks.paper.store import CACHE, RESULTS, append
from tests.benchmarks.paper.tasks import Task
from tests.benchmarks.trained import machine, short_commit

WARMUP = 0.15
"""Share of the steps in which the learning rate rises."""

Loss = Callable[[tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]


def train(network: Network, seed: int = 0) -> None:
    """Write ``network.path``; goes on from the last epoch of an earlier try."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = time.perf_counter()
    assert network.build is not None
    module = network.build().to(device)
    data = Images(network.task, "train")
    steps = len(data.x) // data.batch
    optimizer = _optimizer(network, module)
    checkpoint = CACHE / "dense" / f"{network.name}.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["epochs"], state["seconds"]
    loss_of = _loss(network.task)
    for epoch in range(first, network.epochs):
        module.train()
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(len(data.x), generator=generator)
        total = 0.0
        for step in range(steps):
            lr = _rate(epoch * steps + step, network.epochs * steps, network.lr)
            for group in optimizer.param_groups:
                group["lr"] = lr
            x, y = data.take(order[step * data.batch : (step + 1) * data.batch], generator)
            with torch.autocast(device.type, torch.bfloat16, enabled=network.amp == "bf16"):
                loss = loss_of(_tuple(module(x.to(device))), y.to(device))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
            total += float(loss.detach())
        seconds = spent + time.perf_counter() - start
        print(network.name, f"epoch {epoch + 1} loss {total / steps:.3f} {seconds:.0f} s", flush=True)
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "epochs": epoch + 1, "seconds": seconds}, checkpoint)
    module = module.cpu().eval()
    row = {
        "network": network.name,
        "parameters": sum(p.numel() for p in module.parameters()),
        "epochs": network.epochs,
        "seed": seed,
        "validation": round(measure(network.task, module, "validation"), 5),
        "test": round(measure(network.task, module, "test"), 5),
        "seconds": round(spent + time.perf_counter() - start),
        "commit": short_commit(),
        "machine": f"{machine()} {device.type}",
        "date": date.today().isoformat(),
        "command": f"python -m tests.benchmarks.paper dense --networks {network.name}",
    }
    export(network, module, network.path)
    append(RESULTS / "dense.jsonl", row)
    checkpoint.unlink()


def export(network: Network, module: nn.Module, path: Path) -> None:
    """The module as ONNX."""
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
        metric.update(_tuple(module(x)), y)
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
    return lambda outputs, y: F.cross_entropy(outputs[0].float(), _ignored(y, outputs[0].shape[1]))


def _ignored(y: torch.Tensor, classes: int) -> torch.Tensor:
    """Pixels of no class are left out."""
    return y.masked_fill((y < 0) | (y >= classes), -100)


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


def _tuple(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
