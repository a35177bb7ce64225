"""A process that judges mutants, so that a hang, a crash or a memory blow-up is a finding too."""

from __future__ import annotations

import faulthandler
import multiprocessing
import resource
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tests.fuzz.judging import Outcome, judge
from tests.fuzz.mutants import Mutant

SECONDS_EACH = 20.0
HANGS_AFTER = 40.0
"""Native code does not stop at SECONDS_EACH: the worker is killed then."""

STACK = "stack.txt"
MEMORY = 8 << 30
"""Address space of the worker; a mutant of a few megabytes has no reason to take it."""


def work(connection: Connection, folder: str) -> None:
    """The worker: judges what it is sent."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while True:
        mutant, seed = connection.recv()
        with open(Path(folder) / STACK, "w") as stack:
            faulthandler.enable(stack)
            faulthandler.dump_traceback_later(HANGS_AFTER - 5, file=stack)
            connection.send("building")
            model = mutant.build()
            found = judge(model, Path(folder), seed, seconds=SECONDS_EACH, stage=connection.send)
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
        connection.send(found)


class Worker:
    """A process that is started again when it dies."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=work, args=(theirs, self.folder), daemon=True)
        self.process.start()
        theirs.close()

    def judge(self, mutant: Mutant, seed: int) -> Outcome:
        self.ours.send((mutant, seed))
        stage = ""
        while True:
            if not self.ours.poll(HANGS_AFTER):
                self.process.kill()
                return self.died(stage, "it hangs in native code")
            try:
                found = self.ours.recv()
            except (EOFError, OSError):
                self.process.join()
                return self.died(stage, f"the process died with exit code {self.process.exitcode}")
            if isinstance(found, Outcome):
                return found
            stage = found

    def died(self, stage: str, what: str) -> Outcome:
        self.process.join()
        self.start()
        # before the package has its turn, onnxruntime alone was running the mutant
        kind = "onnxruntime" if stage == "original" else "finding"
        stack = (Path(self.folder) / STACK).read_text()
        return Outcome(kind, f"{stack}{what} (in the stage {stage!r})")

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
