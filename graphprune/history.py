"""``OUT.history.json``: how a decision came about, for the report: metrics, the training step by step.

It lies beside the plan and not in it: the plan is the decision, the same however it was found, and is carried out
again without it. It names the plan by hash, so that one that was left behind is never taken for another plan's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from graphprune.errors import PlanError
from graphprune.plan import beside_plan

HISTORY_VERSION = 1

COLUMNS = ("step", "phase", "loss", "temperature", "undecided", "kept", "target")
"""Of a training, at some two hundred looks: ``undecided``, ``kept`` and ``target`` are shares, of masks and of cost."""


@dataclass(frozen=True)
class History:
    """metrics: when it was measured -> value. training: ``COLUMNS``, or empty. curves: a method's own, by name.

    None is in the place of what is not finite, which JSON cannot hold.
    """

    metrics: Mapping[str, float | None] = field(default_factory=dict)
    training: Mapping[str, list[Any]] = field(default_factory=dict)
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        metrics: Mapping[str, float],
        training: Mapping[str, list[Any]],
        curves: Mapping[str, list[float]],
    ) -> History:
        """From what a run has measured."""
        return cls(
            {name: _finite(value) for name, value in metrics.items()},
            {name: [_finite(v) for v in values] for name, values in training.items()},
            {name: [_finite(v) for v in values] for name, values in curves.items()},
        )

    def __bool__(self) -> bool:
        return bool(self.metrics or self.training or self.curves)

    def to_json(self, plan: bytes) -> str:
        """The file's text; ``plan`` is the content of the plan it belongs to."""
        named = {"version": HISTORY_VERSION, "plan_sha256": hashlib.sha256(plan).hexdigest()}
        return json.dumps({**named, **asdict(self)}, indent=1, allow_nan=False) + "\n"


def load_history(plan: Path) -> History:
    """What lies beside a plan; nothing where there is none, or it belongs to another plan.

    Raises PlanError for a file that is not readable.
    """
    path = beside_plan(plan, ".history.json")
    if not path.is_file():
        return History()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        digest = hashlib.sha256(plan.read_bytes()).hexdigest()
        if data["version"] != HISTORY_VERSION or data["plan_sha256"] != digest:
            return History()
        training = data["training"]
        return History(
            {str(when): _number(value) for when, value in data["metrics"].items()},
            {name: [_entry(name, v) for v in training[name]] for name in COLUMNS if training},
            {str(name): [_number(v) for v in values] for name, values in data["curves"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PlanError(f"{path} is not a readable history: remove it, the report does without") from error


def _entry(name: str, value: Any) -> Any:
    return str(value) if name == "phase" else _number(value)


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
