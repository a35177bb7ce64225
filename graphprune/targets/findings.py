"""What a check has to say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FAIL, NOTE = "fail", "note"


@dataclass(frozen=True)
class Finding:
    """One thing about a node or weight.

    severity: ``fail`` (the file does not fit the target) or ``note`` (it runs, but not as the target could).
    rule: operator, channels, block, nm, storage or plan.
    name: the node or weight; empty for the whole file.
    sentence: what is so, in the same words for all that are alike; detail: its numbers.
    advice: what to do about it; empty where nothing need be done.
    """

    severity: str
    rule: str
    name: str
    sentence: str
    detail: str = ""
    advice: str = ""

    @property
    def text(self) -> str:
        """Sentence and detail."""
        return f"{self.sentence} ({self.detail})" if self.detail else self.sentence


def runs_dense_note(rule: str, name: str, reason: str, detail: str = "") -> Finding:
    """A weight from whose zeros, if it has any, the target has nothing."""
    return Finding(NOTE, rule, name, f"runs dense: {reason}", detail)


@dataclass(frozen=True)
class CheckReport:
    """What ``graphprune.check`` found out about ``model`` and ``target`` (their names)."""

    model: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the file fits: nothing fails."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Findings that must be put right."""
        return tuple(f for f in self.findings if f.severity == FAIL)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Findings that are only information."""
        return tuple(f for f in self.findings if f.severity == NOTE)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``check --json``: model, target, ok, findings (failures first)."""
        ordered = [asdict(f) for f in (*self.failures, *self.notes)]
        return {"model": self.model, "target": self.target, "ok": self.ok, "findings": ordered}
