"""What was measured of every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ACCURACY, DISTANCE = "accuracy", "output distance"


@dataclass(frozen=True)
class GroupSensitivity:
    """One group pruned alone.

    group, name: of the analysis. bound: ids of other groups that constraints make lose channels with it.
    removed: shares of its filters that went: the nearest to the ratios, and at least one channel.
    values: the metric then; None where it is no finite number.
    """

    group: int
    name: str
    bound: tuple[int, ...]
    removed: tuple[float, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Sensitivity:
    """Every group pruned alone, most sensitive first.

    metric: ``accuracy``, or ``output distance``: the divergence in nats from the original's classes where outputs are
    ``[n, classes]``, squared error over variance otherwise. unpruned: the metric of the model itself.
    method: what decided the order of the channels. inputs: ``data`` or ``noise``. samples: how many were run.
    """

    ratios: tuple[float, ...]
    metric: str
    unpruned: float | None
    method: str
    inputs: str
    samples: int
    groups: tuple[GroupSensitivity, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``analyze --json``."""
        groups = [
            {
                "group": g.group,
                "name": g.name,
                "bound": list(g.bound),
                "removed": [round(r, 4) for r in g.removed],
                "values": list(g.values),
            }
            for g in self.groups
        ]
        own = {k: v for k, v in vars(self).items() if k not in ("ratios", "groups")}
        return {"ratios": list(self.ratios), **own, "groups": groups}
