"""What a training shows while it runs: a live line on a terminal, a few plain lines elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import output

if TYPE_CHECKING:
    from graphprune.recipes.training import Progress

_LINES = 20
"""Plain lines in a whole training."""


class Watching:
    """Shows steps and metrics; use it in a ``with`` statement."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._shown = -1
        self._counted: tuple[str, int] = ("", -1)
        self._start = time.monotonic()

    def __enter__(self) -> Watching:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed}/{task.total}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(file=sys.stderr, highlight=False),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, progress: Progress) -> None:
        """Show a step."""
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("", total=progress.total, completed=progress.step - 1)
            self._bar.update(self._task, completed=progress.step, description=_line(progress))
            return
        part = progress.step * _LINES // progress.total
        if part != self._shown:
            self._shown = part
            spent = time.monotonic() - self._start
            output.progress(f"step {progress.step}/{progress.total}  {_line(progress)}  {spent:.0f} s")

    def count(self, what: str, done: int, total: int) -> None:
        """Show a step of something that is not training."""
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("", total=total)
            self._bar.update(self._task, completed=done, total=total, description=what)
            return
        part = (what, done * 4 // max(total, 1))
        if part != self._counted:
            self._counted = part
            output.progress(f"{what} {done}/{total}  {time.monotonic() - self._start:.0f} s")

    def metric(self, when: str, name: str, value: float) -> None:
        """Show a metric."""
        self._say(f"{name} {when}: {100 * value:.2f} %" if 0 <= value <= 1 else f"{name} {when}: {value:g}")

    def note(self, sentence: str) -> None:
        """Show a note."""
        self._say(f"note: {sentence}")

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False)
        else:
            output.progress(line)


def _line(p: Progress) -> str:
    parts = [f"{p.phase:9}", f"epoch {p.epoch:.2f}", f"loss {p.loss:.4f}"]
    if p.phase == "search":
        parts += [f"temperature {p.temperature:.2g}", f"undecided {100 * p.undecided:.0f} %"]
    return "  ".join([*parts, f"kept {100 * p.kept:.1f} %"])
