"""Where a training runs: one device, or several processes that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from graphprune.errors import OptionError


@dataclass(frozen=True)
class Devices:
    """This process' device, its ``rank`` and how many ranks there are (``world``)."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank prints and writes."""
        return self.rank == 0

    def place(self, *modules: nn.Module) -> None:
        """Move modules to the device, in place."""
        for module in modules:
            module.to(self.device)

    def inputs(self, tensors: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Tensors on the device; images channels-last, which convolutions then keep to the end.

        Measured on ResNet-20, float32, one AVX-512 thread: 0.36 s a step instead of 0.52 s.
        """
        moved = (x.to(self.device) for x in tensors)
        return tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in moved)

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module to call in training: torch's DistributedDataParallel where there are several ranks."""
        if self.world == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        ids = [self.device] if self.device.type == "cuda" else None
        # masks rest before the search and between their updates; some weights reach no output at all
        return nn.parallel.DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)


@contextmanager
def devices(device: str = "auto", threads: int | None = None) -> Iterator[Devices]:
    """The devices of this run; a process group is open inside the block where torchrun started several.

    Raises OptionError for a device that this machine does not have.
    """
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    try:
        if world == 1:
            yield Devices(place)
            return
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
        try:
            yield Devices(place, rank, world)
        finally:
            dist.destroy_process_group()
    finally:
        torch.set_num_threads(before)


def is_first_rank() -> bool:
    """Whether this process is the one that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        reason = str(error).splitlines()[0]
        raise OptionError(f"--device {name}: {reason}; use auto or cpu") from error
    return device
