"""Which rows each table and figure rests on, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.benchmarks.paper import tuning
from tests.benchmarks.paper.keys import Key
from tests.benchmarks.paper.store import Rows

BLOCK = "16x8x1x1"
SEEDS = (0, 1, 2)
STEPS = 390
"""One epoch of CIFAR-10 in batches of 128."""

PUBLISHED = ("budget-anneal=0", "snap=0")
"""SMART without what we added: the budget holds from the first step, and to the last with soft masks."""


def tune(rows: Rows) -> Iterator[Key]:
    """Trials of settings on validation images."""
    for method in tuning.METHODS:
        yield from tuning.first(method)
    for method in tuning.METHODS:
        yield from tuning.second(method, rows)


def resnet20(rows: Rows) -> Iterator[Key]:
    """ResNet-20: one channel row and one block row, every method, three seeds."""
    for seed in SEEDS:
        for structure, sparsity in (("channel", 0.5), (BLOCK, 0.7)):
            for method in reversed(tuning.METHODS):
                yield from tuned(rows, "resnet20", structure, sparsity, method, seed)
            yield from tuned(rows, "resnet20", structure, sparsity, "smart", seed, PUBLISHED)


def tuned(
    rows: Rows,
    network: str,
    structure: str,
    sparsity: float,
    method: str,
    seed: int,
    more: tuple[str, ...] = (),
    steps: int = STEPS,
) -> Iterator[Key]:
    """The row with the method's settings, where they are known."""
    settings = tuning.chosen(method, rows)
    if settings is not None:
        flags = {entry.split("=")[0] for entry in more}
        kept = (s for s in settings if s.split("=")[0] not in flags)
        yield Key(network, structure, sparsity, method, seed, steps, settings=tuple(sorted((*kept, *more))))


EXPERIMENTS: dict[str, Callable[[Rows], Iterator[Key]]] = {"tune": tune, "resnet20": resnet20}
