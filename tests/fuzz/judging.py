"""What becomes of a mutant: pruned and right, refused in one sentence, or a finding.

Right is judged twice: by the proof of the package, and by tests.oracle, which shares no code with it.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import onnx

import graphprune
from graphprune.errors import BudgetError, FidelityError, GraphpruneError
from tests import oracle

LONGEST_SENTENCE = 700
ORACLE_BYTES = 3_000_000
"""Larger models are left to the package's own proof."""

Stage = Callable[[str], None]
"""Told what is about to happen, for whoever must know what a process died of."""


class TooSlow(BaseException):
    """Raised in the middle of whatever takes too long; no ``except Exception`` stops it."""


@dataclass(frozen=True)
class Outcome:
    """``kind``: pruned, refused or finding. ``original``: whether onnxruntime runs the mutant itself.

    ``removed``: filters that went. ``compared``: the independent reference agreed.
    """

    kind: str
    text: str = ""
    original: bool = False
    removed: int = 0
    compared: bool = False
    seconds: float = 0.0


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TooSlow after so many seconds of wall time."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(
    model: onnx.ModelProto, folder: Path, seed: int, *, seconds: float = 20.0, stage: Stage = lambda _: None
) -> Outcome:
    """Analyse and prune ``model``; ``seed`` draws the options. Never raises what the package raises."""
    path = folder / "mutant.onnx"
    path.write_bytes(model.SerializeToString())
    stage("original")
    original = _runs(model)
    stage("package")
    start = time.perf_counter()
    try:
        with limited(seconds):
            found = _judged(model, path, seed, original)
    except TooSlow:
        where = "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
        found = Outcome("finding", f"more than {seconds:.0f} s\n{where}", original)
    return Outcome(
        found.kind, found.text, original, found.removed, found.compared, time.perf_counter() - start
    )


def _runs(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime takes the mutant and its random inputs."""
    try:
        with limited(10):
            oracle.session(model).run(None, oracle.inputs(model, 0))
    except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
        return False
    except TooSlow:
        return False
    return True


def _judged(model: onnx.ModelProto, path: Path, seed: int, original: bool) -> Outcome:
    try:
        graphprune.analyze(path).to_dict()
        result = _pruned(path, seed)
    except GraphpruneError as error:
        return _refused(error, original)
    except Exception:  # noqa: BLE001 - whatever it is, it is what the fuzzer looks for
        return Outcome("finding", traceback.format_exc())
    if not result.fidelity.holds:
        return Outcome("finding", f"the proof does not hold: {result.fidelity.message}")
    compared = False
    if path.stat().st_size <= ORACLE_BYTES and result.fidelity.tolerance <= oracle.TOLERANCE and original:
        fault = _difference(model, result)
        if fault is not None and fault.startswith("differs"):
            return Outcome("finding", fault)
        compared = fault is None
    return Outcome("pruned", result.fidelity.message, removed=result.removed_channels, compared=compared)


def _pruned(path: Path, seed: int) -> graphprune.PruneResult:
    """Pruned by 30 %, or by what is possible."""
    rng = np.random.default_rng(seed)
    options = {
        "method": ("random", "magnitude")[int(rng.integers(2))],
        "multiple_of": 1,
        "allow_inexact": bool(rng.integers(2)),
        "attention": ("heads", "width", "both")[int(rng.integers(3))],
        "seed": seed % 1000,
    }
    try:
        return graphprune.prune(path, sparsity=0.3, **options)
    except BudgetError:
        return graphprune.prune(path, sparsity=0.05, **options)


def _refused(error: GraphpruneError, original: bool) -> Outcome:
    text = str(error)
    if isinstance(error, FidelityError):
        return Outcome("finding", f"own bug: {text}\n{traceback.format_exc()}")
    if error.exit_code != 2 or "\n" in text or not 0 < len(text) <= LONGEST_SENTENCE:
        return Outcome("finding", f"not one sentence: {text!r}")
    if original and "cannot run the original" in text:
        return Outcome("finding", f"onnxruntime runs the original: {text}")
    return Outcome("refused", f"{type(error).__name__}: {text}")


def _difference(model: onnx.ModelProto, result: graphprune.PruneResult) -> str | None:
    """What the independent reference says: None where it agrees, else a reason."""
    pruned = result.model.to_onnx()
    if not _runs(pruned):
        return "differs: onnxruntime runs the mutant and not the pruned model"
    try:
        reference = oracle.masked(model, pruned, result.plan.to_dict())
        worst = oracle.difference(reference, pruned)
    except oracle.NotComparable as error:
        return f"not compared: {error}"
    except AssertionError as error:
        return f"differs: {error}"
    except Exception as error:  # noqa: BLE001 - the reference cannot do what the mutant holds
        return f"not compared: {type(error).__name__}: {error}"
    return None if worst <= oracle.TOLERANCE else f"differs from the independent reference by {worst:.1e}"
