"""Ctrl-C and the signals that end a process, during a training: between two steps, so that a checkpoint is whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = tuple(s for s in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, s))

_SAME_SECONDS = 1.0
"""Signals so close are one request: a terminal sends Ctrl-C to a launcher and its workers, and the launcher again."""


class Stopping:
    """Turns the first signal into a KeyboardInterrupt outside of ``step()``; the second interrupts at once.

    Use it in a ``with`` statement, which puts the handlers back that were there. ``say`` tells the user that the
    step is finished first. Outside of the main thread, which alone hears signals, nothing is changed.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.exit_code = 128 + signal.SIGINT
        """What a shell calls a process that this signal ended."""
        self.torn = False
        """Whether a step was interrupted, so that its state is not to be kept."""
        self._say = say
        self._asked: float | None = None
        self._busy = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for name in _SIGNALS:
                number = getattr(signal, name)
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # nohup means it
                    self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def step(self) -> Iterator[None]:
        """What must not be left half done: the first signal waits for its end."""
        self._busy = True
        try:
            yield
        except BaseException:
            self.torn = True
            raise
        finally:
            self._busy = False
        if self._asked is not None:
            raise KeyboardInterrupt

    def _heard(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is not None and now - self._asked < _SAME_SECONDS:
            return
        first, self._asked = self._asked is None, now
        self.exit_code = 128 + number
        if not (first and self._busy):
            raise KeyboardInterrupt
        if self._say is not None:
            with suppress(RuntimeError):  # the stream may be in the middle of another line
                self._say("stopping when this step is done; Ctrl-C again stops at once")
