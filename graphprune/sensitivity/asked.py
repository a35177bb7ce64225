"""What a measurement of sensitivity is told, and the inputs that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphprune.analysis import Analysis
from graphprune.calibration.criteria import all_data_criteria
from graphprune.calibration.effort import samples_for_runs
from graphprune.calibration.evaluating import Labelled, labelled_batches
from graphprune.calibration.inputs import BATCH_SIZE, Data, Reading, calibration_feeds, random_feeds
from graphprune.criteria import all_criteria
from graphprune.errors import OptionError
from graphprune.lookup import lookup
from graphprune.running import Feed

RATIOS = (0.1, 0.3, 0.5)
WITHOUT_DATA, WITH_DATA = "magnitude", "wanda"
"""The order in which channels go unless the caller says otherwise: the cheapest of either kind."""

LABELLED = 2_000
"""Most samples for an accuracy, which needs more than a distance does."""


@dataclass(frozen=True)
class Asked:
    """What a measurement is told.

    ratios: shares of a group's filters. method: a criterion of weights, or with ``data`` one that looks at
    activations; None is the cheapest. data: what outputs are compared on. eval_data: labelled, for the accuracy.
    samples: how many are looked at, and how many are run; None is as many as the model's size allows.
    Raises OptionError.
    """

    ratios: Sequence[float] = RATIOS
    method: str | None = None
    data: Data | None = None
    eval_data: str | Reading | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        if not self.ratios or not all(0 < r < 1 for r in self.ratios):
            raise OptionError(
                f"--ratios {','.join(f'{r:g}' for r in self.ratios)}: give shares between 0 and 1"
            )
        if self.samples is not None and self.samples < 1:
            raise OptionError(f"--samples {self.samples}: give a number from 1")
        lookup({**all_criteria(), **all_data_criteria()}, self.order, "method without training")
        if self.data is None and self.order in all_data_criteria():
            raise OptionError(f"--method {self.order} looks at inputs: give --data too")

    @property
    def order(self) -> str:
        """The method that decides which channels go first."""
        return self.method or (WITHOUT_DATA if self.data is None else WITH_DATA)


@dataclass(frozen=True, eq=False)
class Seen:
    """Inputs that were read: ``feeds`` to look at, and ``labelled`` batches where there is accuracy to measure."""

    feeds: list[Feed]
    labelled: list[Labelled]

    @property
    def all_feeds(self) -> list[Feed]:
        """Every batch."""
        return [*self.feeds, *(feed for feed, _ in self.labelled)]


def read_inputs(model: ir.Model, analysis: Analysis, asked: Asked, seed: int = 0) -> Seen:
    """What ``asked`` names, as many samples as the model's size allows. Raises DataError, OptionError."""
    groups = sum(g.prunable for g in analysis.groups)
    macs, runs = analysis.cost.total_macs // analysis.batch, groups * len(asked.ratios)
    count = asked.samples or samples_for_runs(macs, runs)
    labelled = []
    if asked.eval_data is not None:
        reading = Reading(asked.eval_data) if isinstance(asked.eval_data, str) else asked.eval_data
        many = asked.samples or samples_for_runs(macs, runs, LABELLED)
        labelled = labelled_batches(model, reading, many, seed=seed)
    if asked.data is not None:
        return Seen(calibration_feeds(asked.data, model, count, seed=seed), labelled)
    noise = [] if labelled else random_feeds(model, analysis.graph, count, BATCH_SIZE, seed)
    return Seen(noise, labelled)
