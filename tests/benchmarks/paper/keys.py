"""What identifies a row: everything that its numbers depend on but for the machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ONE_SHOT = ("magnitude", "pso", "snip", "synflow", "grasp")
"""Methods without a search: what others search in, they fine-tune in."""

WORDS = ("allocation",)
"""Settings that are words of ``prune``, not of the recipe."""

OTHERS = ("gate", "search-share")
"""Settings of these experiments."""


def replaced(settings: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """``settings`` with ``more`` in the place of what sets the same, sorted."""
    flags = {entry.split("=")[0] for entry in more}
    return tuple(sorted((*(s for s in settings if s.split("=")[0] not in flags), *more)))


@dataclass(frozen=True)
class Key:
    """One training run. ``structure``: ``channel``, a block such as ``16x8x1x1``, or a pattern such as ``2:4``.

    ``steps``: of batches, search and fine-tuning together. ``split``: what is measured on, ``validation`` or ``test``.
    ``settings``: what differs from the task's recipe, as ``flag=value``, sorted; ``search-share`` is the share of
    the steps that the search has.
    """

    network: str
    structure: str
    sparsity: float
    method: str
    seed: int
    steps: int
    split: str = "test"
    settings: tuple[str, ...] = ()

    @property
    def flags(self) -> dict[str, str]:
        """The settings, flag -> value."""
        return dict(entry.split("=", 1) for entry in self.settings)

    @property
    def words(self) -> dict[str, Any]:
        """``graphprune.prune``'s words for the structure, its budget and how that is spread."""
        if self.structure == "channel":
            found = {"structure": "channel", "sparsity": self.sparsity, "multiple_of": 1}
        elif ":" in self.structure:
            found = {"structure": "nm", "nm": self.structure}
        else:
            found = {"structure": "block", "block": self.structure, "sparsity": self.sparsity}
        return {**found, **{k: v for k, v in self.flags.items() if k in WORDS}}

    @property
    def command(self) -> str:
        """What runs this row alone."""
        given = f"--network {self.network} --structure {self.structure} --sparsity {self.sparsity:g}"
        given += f" --method {self.method} --seed {self.seed} --steps {self.steps} --split {self.split}"
        settings = f" --set {' '.join(self.settings)}" if self.settings else ""
        return f"python -m tests.benchmarks.paper row {given}{settings}"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"settings": list(self.settings)}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Key:
        """The key of a JSON line."""
        names = cls.__dataclass_fields__
        return cls(**{k: tuple(v) if k == "settings" else v for k, v in row.items() if k in names})
