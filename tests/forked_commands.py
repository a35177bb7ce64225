"""Commands as real processes for signals to hit, forked from one that has imported everything: starts cost nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Command:
    """A running command; ``log`` gets its stdout and stderr."""

    pid: int
    log: Path
    server: Server

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """What it has printed, once that holds ``text``."""
        end = time.monotonic() + seconds
        while text not in (said := self.said()):
            assert time.monotonic() < end, said
            time.sleep(0.005)
        return said

    def wait(self) -> int:
        """Its exit code; negative where a signal ended it."""
        return self.server.ask({"wait": self.pid})

    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8")


class Server:
    """The process that forks them; use it in a ``with`` statement."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def start(self, arguments: Sequence[object], log: Path, setup: str = "") -> Command:
        """Run the command line with ``arguments``, after the Python statements ``setup``."""
        log.write_bytes(b"")
        words = [str(a) for a in arguments]
        return Command(self.ask({"start": words, "log": str(log), "setup": setup}), log, self)

    def ask(self, question: dict[str, object]) -> int:
        """One line there, one number back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _serve() -> None:
    import torch  # noqa: F401 - imported for the commands

    import graphprune.api
    import graphprune.search.search
    import graphprune.training.run  # noqa: F401
    from graphprune.__main__ import command_line

    command_line()
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                _run(asked)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _run(asked: dict[str, object]) -> None:
    from graphprune.__main__ import command_line

    code = 1
    try:
        log = os.open(str(asked["log"]), os.O_WRONLY | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        exec(str(asked["setup"]), {})
        code = command_line()(asked["start"])
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - what the interpreter would print
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
