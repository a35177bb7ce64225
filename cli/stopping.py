"""Signals that end the program, and how a training that they stop goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from typer.core import TyperGroup

_SIGNALS = tuple(s for s in ("SIGTERM", "SIGHUP") if hasattr(signal, s))


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which then clean up as Ctrl-C does."""

    exit_code = 128 + signal.SIGTERM


class Interruption(Exception):
    """A command was interrupted; ``exit_code`` says by which signal."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("interrupted")
        self.exit_code = exit_code


class Group(TyperGroup):
    """The commands; typer itself would say nothing of an interruption, and call every one Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Raises Interruption."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interruption(exit_code(error)) from None


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell calls a process that was stopped so: 130 for Ctrl-C."""
    return error.exit_code if isinstance(error, Stopped) else 128 + signal.SIGINT


@contextmanager
def stoppable() -> Iterator[None]:
    """Have signals that would end the process raise ``Stopped``, but those that it was told to ignore."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            number = getattr(signal, name)
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    error = Stopped()
    error.exit_code = 128 + number
    raise error


@contextmanager
def resumable(checkpoint: Path | None) -> Iterator[None]:
    """Say how a training goes on that is stopped outside of its steps. Raises Interrupted."""
    from graphprune.errors import Interrupted

    try:
        yield
    except KeyboardInterrupt as error:
        if checkpoint is None or not checkpoint.exists():
            raise
        sentence = f"interrupted; --resume goes on from {checkpoint}"
        raise Interrupted(sentence, exit_code(error)) from None


@contextmanager
def unwritten(checkpoint: Path | None) -> Iterator[None]:
    """Say how to have a result of training written that the disk does not take. Raises OptionError."""
    from graphprune.errors import OptionError

    try:
        yield
    except OptionError as error:
        if checkpoint is None or not checkpoint.exists():
            raise
        raise OptionError(f"{error}; --resume then goes on from {checkpoint}") from error
