"""Which rows each table and figure rests on, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.benchmarks.paper import tuning
from tests.benchmarks.paper.keys import Key, replaced
from tests.benchmarks.paper.networks import NETWORKS
from tests.benchmarks.paper.producer_gates import PRODUCER
from tests.benchmarks.paper.store import Rows
from tests.benchmarks.paper.tuning import METHODS

BLOCK = "16x8x1x1"
SEEDS = (0, 1, 2)
PUBLISHED = ("budget-anneal=0", "snap=0")
"""SMART without what we added: the budget holds from the first step, and masks are soft to the last one."""

BLOCKS = (0.3, 0.5, 0.7)
CHANNELS = (0.2, 0.5)
CLASSIFIERS = ("resnet18", "googlenet", "densenet", "mobilenet", "resnet56")
PRUNED = ("resnet20", "bisenet", "yolov5", *CLASSIFIERS)
TRANSFORMERS = ("vit", "swin")
LATER = ("resnet18", "googlenet", "densenet", "mobilenet")
HIGH = (0.9, 0.95, 0.97)

PAPER_METHODS = ("smart", "pdp", "pas", "awg", "acdc")
CURVE_METHODS = ("smart", "pso", "snip", "synflow", "grasp", "magnitude")
CURVE = (0.3, 0.5, 0.7, 0.9)
INIT_TEMPS = (0.1, 1.0, 10.0)
FINAL_TEMPS = (1e-2, 1e-3, 1e-4)

ABLATIONS = {
    "as in the tables": (),
    "as published: no annealing of the budget, no snap": PUBLISHED,
    "fixed temperature 1": ("init-temp=1", "final-temp=1"),
    "fixed temperature 0.3": ("init-temp=0.3", "final-temp=0.3"),
    "fixed temperature 0.05": ("init-temp=0.05", "final-temp=0.05"),
    "temperature falls linearly": ("temp-schedule=linear",),
    "masks start from activations": ("mask-init=activation",),
    "masks start from weights x activations": ("mask-init=weight-activation",),
    "masks start from a first-order Taylor term": ("mask-init=taylor",),
    "masks start equal": ("mask-init=constant",),
    "gates at producers, before BatchNorm": (PRODUCER,),
    "a quarter of the steps searches": ("search-share=0.25",),
    "three quarters of the steps search": ("search-share=0.75",),
    "distillation instead of labels": ("loss=distill",),
}

CHANGES = {
    **ABLATIONS,
    "masks learn three times as fast": ("mask-lr=0.1",),
    "first temperature 1": ("init-temp=1",),
    "a third of the learning rate": ("lr=0.0015",),
}


@dataclass(frozen=True)
class Suspect:
    """One of CHANGES that may tell why SMART is behind somewhere.

    On validation images a row is as long as a trial of the tuning.
    """

    title: str
    network: str
    structure: str
    sparsity: float
    split: str = "test"
    seeds: tuple[int, ...] = (0,)

    @property
    def more(self) -> tuple[str, ...]:
        """The settings that change."""
        return CHANGES[self.title]

    def keys(self, rows: Rows, seed: int, more: tuple[str, ...]) -> Iterator[Key]:
        """SMART there with ``more``: the row, or none before its settings are known."""
        for key in tuned(rows, self.network, self.structure, self.sparsity, "smart", seed, more):
            steps = key.steps if self.split == "test" else tuning.STEPS
            yield replace(key, split=self.split, steps=steps)


SUSPECTS = (
    Suspect("masks start equal", "mobilenet", "channel", 0.5, "validation", SEEDS),
    *(
        Suspect(title, "mobilenet", "channel", 0.5, "validation")
        for title in (
            "masks start from a first-order Taylor term",
            "masks start from activations",
            "masks start from weights x activations",
            "masks learn three times as fast",
            "first temperature 1",
        )
    ),
    *(Suspect("masks start equal", network, "channel", 0.5) for network in ("mobilenet", "googlenet")),
    Suspect("a third of the learning rate", "resnet20", BLOCK, 0.3, seeds=SEEDS),
)


def tune(rows: Rows) -> Iterator[Key]:
    """Trials of settings on validation images, ResNet-20."""
    for method in METHODS:
        yield from tuning.rates(tuning.HOME, method, rows)
    for method in METHODS:
        yield from tuning.own(tuning.HOME, method, rows)


def tune_others(rows: Rows) -> Iterator[Key]:
    """Trials on other networks than ResNet-20."""
    for place in tuning.PLACES.values():
        for method in fitting(place.structure) if place is not tuning.HOME else ():
            yield from tuning.trials(place, method, rows)


def resnet20(rows: Rows) -> Iterator[Key]:
    """ResNet-20: one channel row and one block row, every method, three seeds."""
    for seed in SEEDS:
        for structure, sparsity in (("channel", 0.5), (BLOCK, 0.7)):
            yield from contest(rows, "resnet20", structure, sparsity, seed)


def table2(rows: Rows) -> Iterator[Key]:
    """Blocks of 16x8x1x1."""
    return everywhere(rows, BLOCK, BLOCKS)


def table3(rows: Rows) -> Iterator[Key]:
    """Output channels."""
    return everywhere(rows, "channel", CHANNELS)


def table4(rows: Rows) -> Iterator[Key]:
    """2:4."""
    for seed in SEEDS:
        for network in TRANSFORMERS:
            for method in reversed(fitting("2:4")):
                yield from tuned(rows, network, "2:4", 0.5, method, seed)


def later(rows: Rows) -> Iterator[Key]:
    """The paper's later version: CIFAR-10 at high sparsity, ResNet-18 at 30 and 95 %."""
    for seed in SEEDS:
        yield from contest(rows, "resnet18", BLOCK, 0.95, seed)
        yield from contest(rows, "resnet18", BLOCK, 0.3, seed)
    for network in LATER:
        for sparsity in HIGH:
            yield from contest(rows, network, BLOCK, sparsity, 0)


def temperatures(rows: Rows) -> Iterator[Key]:
    """A grid over the first and the last temperature."""
    for seed in SEEDS:
        for first in INIT_TEMPS:
            for last in FINAL_TEMPS:
                more = (f"init-temp={first:g}", f"final-temp={last:g}")
                yield from tuned(rows, "resnet18", BLOCK, 0.9, "smart", seed, more)


def curves(rows: Rows) -> Iterator[Key]:
    """Accuracy against sparsity, as in the slides of PSO: methods without training of masks, and SMART."""
    for sparsity in reversed(CURVE):
        for method in CURVE_METHODS:
            yield from curve_row(rows, sparsity, method)


def curve_row(rows: Rows, sparsity: float, method: str) -> Iterator[Key]:
    """Budgets are spread over layers by equal shares where masks do not train, as the code of PSO does for channels."""
    more = () if method == "smart" else ("allocation=uniform",)
    return tuned(rows, "resnet18", "channel", sparsity, method, 0, more)


def ablations(rows: Rows) -> Iterator[Key]:
    """What each part of SMART is worth."""
    for seed in SEEDS:
        for more in ABLATIONS.values():
            yield from tuned(rows, "resnet20", "channel", 0.5, "smart", seed, more)


def suspects(rows: Rows) -> Iterator[Key]:
    """Why SMART is behind where it is."""
    for suspect in SUSPECTS:
        for seed in suspect.seeds:
            for more in ((), suspect.more):
                yield from suspect.keys(rows, seed, more)


def everywhere(rows: Rows, structure: str, sparsities: tuple[float, ...]) -> Iterator[Key]:
    """One seed of all networks, then the other seeds on ResNet-20; what prunes most comes first."""
    for seed in SEEDS:
        for sparsity in reversed(sparsities):
            for network in PRUNED if seed == 0 else ("resnet20",):
                yield from contest(rows, network, structure, sparsity, seed)


def contest(rows: Rows, network: str, structure: str, sparsity: float, seed: int) -> Iterator[Key]:
    """Every method on the same; SMART also as published."""
    for method in reversed(METHODS):
        yield from tuned(rows, network, structure, sparsity, method, seed)
    yield from tuned(rows, network, structure, sparsity, "smart", seed, PUBLISHED)


def fitting(structure: str) -> tuple[str, ...]:
    """The methods that prune so: PSO spreads a budget over layers, and a pattern leaves none to spread."""
    return tuple(method for method in METHODS if method != "pso" or ":" not in structure)


def tuned(
    rows: Rows,
    network: str,
    structure: str,
    sparsity: float,
    method: str,
    seed: int,
    more: tuple[str, ...] = (),
) -> Iterator[Key]:
    """The row with the method's settings and ``more``; none before these are known.

    Methods that were not tuned have magnitude's settings: like it they prune at once, and fine-tune.
    """
    settings = tuning.chosen(method if method in METHODS else "magnitude", rows, network)
    if settings is not None:
        steps = NETWORKS[network].steps
        yield Key(network, structure, sparsity, method, seed, steps, settings=replaced(settings, more))


EXPERIMENTS: dict[str, Callable[[Rows], Iterator[Key]]] = {
    function.__name__: function
    for function in (
        tune,
        resnet20,
        tune_others,
        table2,
        table3,
        table4,
        later,
        temperatures,
        curves,
        ablations,
        suspects,
    )
}
