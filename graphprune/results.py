"""What ``prune`` gives back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.analysis import Analysis
from graphprune.errors import OptionError
from graphprune.history import History
from graphprune.layouts import Layout, written_layouts
from graphprune.models import Model
from graphprune.plan import Plan, history_path, plan_path, recipe_path
from graphprune.writing import check_free, write_bytes

if TYPE_CHECKING:
    from graphprune.formats import Emitted
    from graphprune.proof import Fidelity
    from graphprune.pruning import Pruned


@dataclass(eq=False)
class PruneResult:
    """What ``prune`` returns: the smaller model, the plan, the proof and the analysis it rests on."""

    model: Model
    plan: Plan
    fidelity: Fidelity
    analysis: Analysis
    removed_channels: int
    """Producer filters that went, of ``analysis.prunable_channels``."""
    module: Any = None
    """Of an nn.Module: the pruned torch.fx.GraphModule, under the original's names, in evaluation mode."""
    program: Callable[[], bytes] | None = None
    """Of an nn.Module: the pruned module as ``torch.export.save`` writes it."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Trained methods with evaluation data: when it was measured -> the metric."""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """What a method leaves to be plotted, step by step: for pso ``density``, ``regrown``, ``removed``."""
    training: dict[str, list[Any]] = field(default_factory=dict)
    """Of a training, look by look: ``history.COLUMNS``."""
    _emitted: dict[str, Emitted] = field(default_factory=dict, repr=False)

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """Where the zeros of blocks and N:M patterns lie: weight name -> its layout in the smaller model."""
        values = self.analysis.graph.values
        names = (*self.plan.blocks, *self.plan.patterns)
        return written_layouts(self.plan, {n: values[n].shape or () for n in names})

    @property
    def history(self) -> History:
        """What ``OUT.history.json`` holds."""
        return History.of(self.metrics, self.training, self.curves)

    def to_html(self, *, recipe: str = "", files: tuple[int, int] | None = None) -> str:
        """The HTML report: one file that needs nothing else, the same text for the same result.

        ``recipe``: its TOML text. ``files``: bytes before and after.
        """
        from graphprune.reporting import Extras, content_of, page

        extras = Extras(files, self.history, recipe, tuple(self.model.notes))
        return page(content_of(self.analysis, self.plan, extras))

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

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        format: str = "dense-zeros",
        recipe: str | None = None,
    ) -> Path:
        """Write the model and, beside it, its plan (``OUT.plan.json``); blocks and N:M: ``OUT.blocks.npz`` too.

        A path that ends in ``.pt2`` gets the pruned module of an ``nn.Module`` as a program of ``torch.export``.
        ``recipe``: the text of ``OUT.recipe.toml``. What there is to plot goes to ``OUT.history.json``. All of them
        appear, or none (module ``placing``).
        Raises OptionError where one of them exists (unless ``force``) or cannot be written.
        """
        target = Path(path)
        if target.suffix == ".pt2" and self.program is None:
            raise OptionError(f"{target}: .pt2 is for what was a PyTorch module; name an .onnx file")
        plan = self.plan.to_json().encode()
        beside = {plan_path(target): plan}
        if self.history:
            beside[history_path(target)] = self.history.to_json(plan).encode()
        gone = [history_path(target)] if force and not self.history else []
        if recipe is not None:
            beside[recipe_path(target)] = recipe.encode()
        if target.suffix == ".pt2" and self.program is not None:
            check_free([target, *beside], force=force)
            return write_bytes(target, self.program(), force=force, beside=beside, gone=gone)
        return self.emit(format).save(target, force=force, beside=beside, gone=gone)


def result_of(source: Model, pruned: Pruned) -> PruneResult:
    """What came of ``source``, as a user gets it."""
    model = Model(pruned.model, f"{source.name} (pruned)", None, list(source.notes))
    return PruneResult(model, pruned.plan, pruned.fidelity, pruned.analysis, pruned.removed_channels)
