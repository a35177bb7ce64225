"""The long mutation fuzzer: ``make fuzz``, or ``python -m tests.fuzz``.

FUZZ_SECONDS (600) says how long, FUZZ_SEED where to start (the clock), FUZZ_FOLDER where findings go. Every finding is
there as a model, what was said of it, and how it came to be; ``python -m tests.fuzz FILE.json`` replays one. Mutants on
which onnxruntime alone dies are kept too, but are no findings.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx

from tests.fuzz.judging import Outcome, judge
from tests.fuzz.mutants import Mutant, draw, real_sources
from tests.fuzz.worker import Worker

LARGEST_SOURCE = 5_000_000

Say = Callable[[str], object]


def keep(mutant: Mutant, outcome: Outcome, seed: int, folder: Path) -> Path:
    """A finding as files, with no more steps than it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{outcome.kind}_{seed}.json"
    path.write_text(mutant.to_json() + "\n")
    path.with_suffix(".txt").write_text(
        f"{outcome.text}\n\nreplay: python -m tests.fuzz {path}\n"
        f"or:     graphprune prune {path.with_suffix('.onnx')} --sparsity 0.3 -o /dev/null\n"
    )
    onnx.save(mutant.build(), path.with_suffix(".onnx"))
    return path


def shrunk(worker: Worker, mutant: Mutant, kind: str, seed: int) -> Mutant:
    """Without the steps that it does not take to come to the same ``kind``."""
    for i in reversed(range(len(mutant.steps))):
        fewer = replace(mutant, steps=mutant.steps[:i] + mutant.steps[i + 1 :])
        if worker.judge(fewer, seed).kind == kind:
            mutant = fewer
    return mutant


def fuzz(seconds: float, first: int, folder: Path, say: Say) -> int:
    """Judge mutants for so long; returns the number of findings."""
    sources = real_sources(LARGEST_SOURCE)
    counts: Counter[str] = Counter()
    say(f"seed {first}, {seconds:.0f} s, sources: random networks and {', '.join(sources)}\n")
    end, seed, slowest = time.monotonic() + seconds, first, 0.0
    with tempfile.TemporaryDirectory(prefix="graphprune-fuzz-") as scratch:
        worker = Worker(scratch)
        try:
            while time.monotonic() < end:
                mutant = draw(sources, seed)
                outcome = worker.judge(mutant, seed)
                counts["mutants"] += 1
                counts[outcome.kind] += 1
                if outcome.kind == "refused":
                    counts[outcome.text.split(":")[0]] += 1
                if outcome.kind in ("finding", "onnxruntime"):
                    path = keep(shrunk(worker, mutant, outcome.kind, seed), outcome, seed, folder)
                    say(f"{path}: {outcome.kind}: {outcome.text.strip().splitlines()[-1]}\n")
                counts["run by onnxruntime"] += outcome.original
                counts["compared by the independent reference"] += outcome.compared
                slowest = max(slowest, outcome.seconds)
                seed += 1
        finally:
            worker.stop()
    say(", ".join(f"{n} {name}" for name, n in counts.items()) + f"; slowest {slowest:.1f} s\n")
    return counts["finding"]


def main(arguments: list[str]) -> int:
    say = sys.stdout.write
    if arguments:
        path = Path(arguments[0])
        mutant = Mutant.from_json(path.read_text())
        with tempfile.TemporaryDirectory(prefix="graphprune-fuzz-") as scratch:
            outcome = judge(mutant.build(), Path(scratch), int(path.stem.rsplit("_", 1)[-1]))
        say(f"{outcome.kind}: {outcome.text}\n")
        return int(outcome.kind == "finding")
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    first = int(os.environ.get("FUZZ_SEED", str(int(time.time()) % 1_000_000 * 1000)))
    folder = Path(os.environ.get("FUZZ_FOLDER", "fuzz-findings"))
    return int(fuzz(seconds, first, folder, lambda text: (say(text), sys.stdout.flush())) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
