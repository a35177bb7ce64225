"""Random numbers of code that is not ours, kept apart from everybody else's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from graphprune.training.order import generator


class Randomness:
    """The global generators of torch (CPU), numpy and Python as foreign code sees them.

    Inside ``with own.running():`` they continue where the last such block ended, from a start that the
    seed alone decides; outside they are as if that code had never run.
    """

    def __init__(self, seed: int, *numbers: int) -> None:
        start = int(generator(seed, *numbers).integers(2**32))
        self._torch = torch.Generator().manual_seed(start).get_state()
        self._numpy = np.random.RandomState(start).get_state()
        self._python = random.Random(start).getstate()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run foreign code."""
        outside = torch.get_rng_state(), np.random.get_state(), random.getstate()
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        try:
            yield
        finally:
            self._torch, self._numpy = torch.get_rng_state(), np.random.get_state()
            self._python = random.getstate()
            torch.set_rng_state(outside[0])
            np.random.set_state(outside[1])
            random.setstate(outside[2])
