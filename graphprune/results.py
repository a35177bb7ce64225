"""What ``prune`` gives back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.analysis import Analysis
from graphprune.errors import OptionError
from graphprune.models import Model
from graphprune.plan import Plan, plan_path
from graphprune.writing import write_text

if TYPE_CHECKING:
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

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the model and, beside it, its plan (``OUT.plan.json``)."""
        target = Path(path)
        if not force and plan_path(target).exists():
            raise OptionError(
                f"{plan_path(target)} exists already: use --force to replace it, or another name"
            )
        written = self.model.save(target, force=force)
        write_text(plan_path(target), self.plan.to_json(), force=True)
        return written
