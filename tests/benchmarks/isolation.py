"""A function in a process of its own with a time limit, so that one crash or endless loop ends one row."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Row = dict[str, Any]


def isolated(function: Callable[[Callable[..., None]], None], seconds: float) -> Row:
    """What ``function(note)`` noted by ``note(key=value, ...)``, and the ``reason`` where it was ended.

    The process is a fork: what is imported here is imported there. ``seconds`` of processor time are allowed, so that
    other work on the machine changes nothing; five times as many on the clock.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(function, theirs, seconds), daemon=True)
    process.start()
    theirs.close()
    row: Row = {}
    end = time.monotonic() + 5 * seconds
    while ours.poll(max(0.0, end - time.monotonic())):
        try:
            row.update(ours.recv())
        except EOFError:
            break
    else:
        process.kill()
        row["reason"] = f"it did not end within {5 * seconds:.0f} s"
    process.join()
    if process.exitcode == -signal.SIGXCPU:
        row["reason"] = f"it did not end within {seconds:.0f} s of processor time"
    if process.exitcode and "reason" not in row:
        row["reason"] = f"the process ended with code {process.exitcode}"
    return row


def _run(function: Callable[[Callable[..., None]], None], pipe: Connection, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), resource.RLIM_INFINITY))
    function(lambda **found: pipe.send(found))
    pipe.close()
