"""onnxruntime sessions as a user would run them: every graph optimisation on."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.engine import Engine
from graphprune.errors import ModelError
from graphprune.running import Feed, first_line


@dataclass(frozen=True)
class Kernel:
    """One operator of the optimised graph: its name there, its operator, and every time it took, in seconds."""

    name: str
    op: str
    seconds: np.ndarray


class Timed:
    """A model in onnxruntime, to be run many times on one input.

    Threads of a session stop waiting for work as soon as it has run, so that sessions that take turns do not
    disturb each other. ``source``: a path, or a serialised model. Raises ModelError where onnxruntime does not
    take it.
    """

    def __init__(
        self, source: str | bytes, feed: Feed, engine: Engine, *, name: str, profile: str = ""
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = engine.threads
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        self.name, self.feed = name, feed
        try:
            self._session: Any = ort.InferenceSession(source, options, providers=[engine.provider])
        except Exception as error:  # onnxruntime's errors have no common base
            raise ModelError(f"onnxruntime cannot load {name}: {first_line(error)}") from error

    def __call__(self) -> None:
        """Run once. Raises ModelError."""
        try:
            self._session.run(None, self.feed)
        except Exception as error:  # onnxruntime's errors have no common base
            raise ModelError(f"onnxruntime cannot run {self.name}: {first_line(error)}") from error

    def end_profiling(self) -> str:
        """The file with what every operator took."""
        return str(self._session.end_profiling())


def kernels(source: str | bytes, feed: Feed, engine: Engine, *, name: str, runs: int) -> list[Kernel]:
    """Every operator of the optimised graph in the order it runs, with its times in ``runs`` runs after one.

    onnxruntime counts in whole microseconds. Raises ModelError.
    """
    with tempfile.TemporaryDirectory(prefix="graphprune-") as folder:
        timed = Timed(source, feed, engine, name=name, profile=os.path.join(folder, "profile"))
        for _ in range(runs + 1):
            timed()
        events = json.loads(Path(timed.end_profiling()).read_text(encoding="utf-8"))
    found: dict[tuple[str, str, Any], list[float]] = {}
    for event in events:
        name_, args = event["name"], event.get("args") or {}
        if event.get("cat") == "Node" and name_.endswith("_kernel_time"):
            key = (name_.removesuffix("_kernel_time"), args.get("op_name", ""), args.get("node_index"))
            found.setdefault(key, []).append(event["dur"] / 1e6)
    return [Kernel(n, op, np.array(t[1:] if len(t) > 1 else t)) for (n, op, _), t in found.items()]
