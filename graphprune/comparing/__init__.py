"""Two models side by side: outputs, metric, size, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphprune.calibration.collect import Progress, silent
from graphprune.calibration.inputs import Data, Reading
from graphprune.comparing.measuring import Measured, measure
from graphprune.comparing.timing import Latency, time_both
from graphprune.engine import Engine
from graphprune.models import load

NOISE = "outputs were compared on random noise; with --data they are compared on your inputs"


@dataclass(frozen=True)
class Comparison:
    """Of two models. ``to_dict`` is what ``compare --json`` prints."""

    first: str
    second: str
    measured: Measured
    bytes: tuple[int | None, int | None]
    """Of the files with their weights; None for a model in memory."""
    latency: Latency | None
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        measured = self.measured
        metric = measured.accuracy and {
            "name": "accuracy",
            **_pair(measured.accuracy),
            "samples": measured.labelled,
        }
        return {
            "first": self.first,
            "second": self.second,
            "inputs": measured.inputs,
            "samples": measured.samples,
            "outputs": [d.to_dict() for d in measured.differences],
            "metric": metric,
            "params": _pair(measured.params),
            "macs": _pair(measured.macs),
            "bytes": _pair(self.bytes),
            "latency": None if self.latency is None else self.latency.to_dict(),
            "notes": list(self.notes),
        }

    def to_html(self) -> str:
        """One HTML file that needs nothing else."""
        from graphprune.comparing.html import comparison_page

        return comparison_page(self.to_dict())


def compare(
    first: Any,
    second: Any,
    *,
    data: Data | None = None,
    eval_data: str | Reading | None = None,
    samples: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    latency: bool = True,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """What two ONNX models (see ``load``) that take the same inputs compute, and what they cost.

    ``data``: inputs, as ``prune`` takes them; else the inputs of ``eval_data``, else seeded noise. At most ``samples``
    of them are looked at. ``eval_data``: labelled, for the accuracy. ``input_shapes``: input name -> sizes, where
    dynamic. ``latency``: also time them in onnxruntime, which needs files (``engine``: its threads and provider).

    Raises OptionError for models with other inputs or outputs, ModelError for one that onnxruntime does not run,
    DataError.
    """
    a, b = load(first), load(second)
    tell = progress or silent
    measured = measure(
        a,
        b,
        data=data,
        eval_data=eval_data,
        samples=samples,
        input_shapes=input_shapes,
        seed=seed,
        progress=tell,
    )
    notes = list(dict.fromkeys([*measured.notes, *([NOISE] if measured.inputs == "noise" else [])]))
    timed = None
    if latency and a.path is not None and b.path is not None:
        timed = time_both((a.path, b.path), measured.feeds, engine or Engine(), tell)
        notes += timed.notes
    return Comparison(a.name, b.name, measured, (a.stored_bytes, b.stored_bytes), timed, tuple(notes))


def _pair(values: Sequence[Any]) -> dict[str, Any]:
    return {"first": values[0], "second": values[1]}


__all__ = ["Comparison", "compare"]
