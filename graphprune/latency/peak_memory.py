"""Peak memory of a model in a process of its own.

This file is also that process's program: it must not import graphprune, whose memory would count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def peak_memory(
    path: str, feed: Mapping[str, np.ndarray], engine: Mapping[str, Any]
) -> dict[str, int] | None:
    """Bytes: ``peak`` of the whole process, and ``model``, what loading and running the model added.

    ``engine``: ``threads`` and ``provider``. None where the system does not say.
    """
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        inputs = Path(folder) / "inputs.npz"
        names = list(feed)
        arrays: dict[str, Any] = {str(i): feed[name] for i, name in enumerate(names)}
        np.savez(inputs, **arrays)
        told = {"path": path, "inputs": str(inputs), "names": names, **engine}
        # -P: modules beside this file must not stand in for others of the same name
        command = [sys.executable, "-P", str(Path(__file__).resolve()), json.dumps(told)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: dict[str, int] = json.loads(done.stdout)
    except ValueError:
        return None
    return found or None


def _high_water() -> int:
    """Bytes; 0 where unknown. ``ru_maxrss`` would start at the size of the process that started this one."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0")
    return int(line.split()[1]) * 1024


def _measure(told: Mapping[str, Any]) -> dict[str, int]:
    import onnxruntime as ort

    arrays = np.load(told["inputs"])
    feed = {name: arrays[str(i)] for i, name in enumerate(told["names"])}
    before = _high_water()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = told["threads"]
    session = ort.InferenceSession(told["path"], options, providers=[told["provider"]])
    for _ in range(2):
        session.run(None, feed)
    peak = _high_water()
    return {"peak": peak, "model": peak - before} if peak else {}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(json.loads(sys.argv[1]))))
