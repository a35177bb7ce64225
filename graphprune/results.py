"""What ``prune`` gives back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.analysis import Analysis
from graphprune.errors import OptionError
from graphprune.layouts import Layout, written_layouts
from graphprune.models import Model
from graphprune.plan import Plan, plan_path
from graphprune.writing import write_text

if TYPE_CHECKING:
    from graphprune.formats import Emitted
    from graphprune.proof import Fidelity


@dataclass(eq=False)
class PruneResult:
    """What ``prune`` returns: the smaller model, the plan, the proof and the analysis it rests on."""

    model: Model
    plan: Plan
    fidelity: Fidelity
    analysis: Analysis
    removed_channels: int
    """Producer filters that went, of ``analysis.prunable_channels``."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Trained methods with evaluation data: when it was measured -> the metric."""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """What a method leaves to be plotted, step by step: for pso ``density``, ``regrown``, ``removed``."""
    _emitted: dict[str, Emitted] = field(default_factory=dict, repr=False)

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """Where the zeros of blocks and N:M patterns lie: weight name -> its layout in the smaller model."""
        values = self.analysis.graph.values
        names = (*self.plan.blocks, *self.plan.patterns)
        return written_layouts(self.plan, {n: values[n].shape or () for n in names})

    def emit(self, format: str = "dense-zeros") -> Emitted:
        """The model in a file format: ``dense-zeros``, ``compact`` or ``sparse-initializer``.

        Raises OptionError for an unknown format, and for whole channels in another format than dense.
        """
        from graphprune.formats import check_format, emit

        check_format(format, self.plan.structure)
        if format not in self._emitted:
            self._emitted[format] = emit(
                self.model.ir, self.layouts, format, pattern=self.plan.pattern or None
            )
        return self._emitted[format]

    def save(self, path: str | os.PathLike[str], *, force: bool = False, format: str = "dense-zeros") -> Path:
        """Write the model and, beside it, its plan (``OUT.plan.json``); blocks and N:M: ``OUT.blocks.npz`` too.

        Raises OptionError where one of them exists (unless ``force``) or cannot be written.
        """
        target = Path(path)
        if not force and plan_path(target).exists():
            raise OptionError(
                f"{plan_path(target)} exists already: use --force to replace it, or another name"
            )
        written = self.emit(format).save(target, force=force)
        write_text(plan_path(target), self.plan.to_json(), force=True)
        return written
