"""Where and how latency is measured: onnxruntime's threads and provider, and the machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune.errors import OptionError
from graphprune.lookup import hint

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Engine:
    """How onnxruntime runs a model that is timed.

    threads: inside operators; 0 is onnxruntime's own default (a thread per physical core). provider: an execution
    provider of the installed onnxruntime, with or without ``ExecutionProvider``. cache: keep the cost table of this
    machine for the next call (README, "Latency").
    """

    threads: int = 0
    provider: str = CPU
    cache: bool = True

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise OptionError(f"--threads {self.threads}: give a number from 1, or leave it out")
        if not self.provider.endswith("ExecutionProvider"):
            object.__setattr__(self, "provider", f"{self.provider}ExecutionProvider")

    def check(self) -> None:
        """Raises OptionError where the installed onnxruntime does not have the provider."""
        import onnxruntime as ort

        known = ort.get_available_providers()
        if self.provider not in known:
            raise OptionError(
                f"--provider {self.provider}: this onnxruntime does not have it; {hint(self.provider, known)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """What a figure was measured on: threads (0: onnxruntime's default), provider, onnxruntime, machine."""
        import onnxruntime as ort

        return {
            "threads": self.threads,
            "provider": self.provider,
            "onnxruntime": ort.__version__,
            "machine": machine(),
        }


def machine() -> str:
    """Processor and number of cores that this process may use, as ``Intel(R) Xeon(R) Processor, 2 cores``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "unknown processor"
