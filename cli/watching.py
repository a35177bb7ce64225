"""What a command shows while it runs: a live line on a terminal, a few plain lines elsewhere; on stderr."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import output

if TYPE_CHECKING:
    from graphprune.recipes.training import Progress

_LINES = 20
"""Plain lines in a whole training."""

SOON, LATE = 1.0, 10.0
"""Seconds until a command that prints nothing shows that it goes on: on a terminal, and in a log."""


class Watching:
    """Shows steps and metrics, and before there are any that ``doing`` goes on; use it in a ``with`` statement."""

    def __init__(self, doing: str = "", *, quiet: bool = False, plain: bool = False) -> None:
        self._doing, self._quiet, self._plain = output.printable(doing), quiet, plain
        self._moving = not quiet and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._bar: Any = None
        self._task: Any = None
        self._shown = -1
        self._counted: tuple[str, int] = ("", -1)
        self._start = time.monotonic()
        self._lock = threading.RLock()
        self._timer = threading.Timer(SOON if self._moving else LATE, self._still)

    def __enter__(self) -> Watching:
        if self._doing and not self._quiet:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()

    def pause(self) -> None:
        """Take what moves off the terminal, and do not begin by itself again: something is printed now."""
        self._timer.cancel()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
            self._bar = self._task = None

    def step(self, progress: Progress) -> None:
        """Show a step."""
        if self._move(progress.step, progress.total, _line(progress)):
            return
        part = progress.step * _LINES // progress.total
        if part != self._shown:
            self._shown = part
            spent = time.monotonic() - self._start
            output.progress(f"step {progress.step}/{progress.total}  {_line(progress)}  {spent:.0f} s")

    def count(self, what: str, done: int, total: int) -> None:
        """Show a step of something that is not training."""
        if self._move(done, total, what):
            return
        part = (what, done * 4 // max(total, 1))
        if part != self._counted:
            self._counted = part
            output.progress(f"{what} {done}/{total}  {time.monotonic() - self._start:.0f} s")

    def _move(self, done: int | None, total: int | None, what: str) -> bool:
        """Show it on the live line, where there is one."""
        self._timer.cancel()
        with self._lock:
            if not self._moving:
                return False
            if self._bar is None:
                self._bar = _live_line(plain=self._plain)
                self._bar.start()
                self._task = self._bar.add_task("", total=total)
            self._bar.update(self._task, completed=done, total=total, description=what)
        return True

    def _still(self) -> None:
        """The command has printed nothing so far."""
        if not self._move(None, None, self._doing):
            output.progress(f"{self._doing} goes on")

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


def _live_line(*, plain: bool) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr, highlight=False, color_system=None if plain else "auto")
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _line(p: Progress) -> str:
    parts = [f"{p.phase:9}", f"epoch {p.epoch:.2f}", f"loss {p.loss:.4f}"]
    if p.phase == "search":
        parts += [f"temperature {p.temperature:.2g}", f"undecided {100 * p.undecided:.0f} %"]
    return "  ".join([*parts, f"kept {100 * p.kept:.1f} %"])
