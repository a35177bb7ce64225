"""Random numbers of code that is not ours, kept apart from everybody else's."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphprune.data.order import generator


class Randomness:
    """The global generators of numpy, Python and, where it is in use, torch (CPU) as foreign code sees them.

    Inside ``with own.running():`` they continue where the last such block ended, from a start that the
    seed alone decides; outside they are as if that code had never run.
    """

    def __init__(self, seed: int, *numbers: int) -> None:
        start = int(generator(seed, *numbers).integers(2**32))
        self._start = start
        self._torch: Any = None
        self._numpy = np.random.RandomState(start).get_state()
        self._python = random.Random(start).getstate()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run foreign code."""
        outside = np.random.get_state(), random.getstate()
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        try:
            with self._torch_running():
                yield
        finally:
            self._numpy, self._python = np.random.get_state(), random.getstate()
            np.random.set_state(outside[0])
            random.setstate(outside[1])

    @contextmanager
    def _torch_running(self) -> Iterator[None]:
        torch: Any = sys.modules.get("torch")
        if torch is None:
            yield
            return
        if self._torch is None:
            self._torch = torch.Generator().manual_seed(self._start).get_state()
        outside = torch.get_rng_state()
        torch.set_rng_state(self._torch)
        try:
            yield
        finally:
            self._torch = torch.get_rng_state()
            torch.set_rng_state(outside)
