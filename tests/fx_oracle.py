"""An imported module beside onnxruntime: the same inputs, the same outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from graphprune.feeds import draw
from graphprune.frontends.loading import load_model
from graphprune.fx import Imported, import_model
from graphprune.fx.attributes import to_tensor
from tests.oracle import session

TOLERANCE = 1e-4
"""Largest difference, relative to the largest absolute value of an output."""

Source = Path | onnx.ModelProto
Shapes = Mapping[str, tuple[int, ...]]


def imported(source: Source, shapes: Shapes | None = None) -> Imported:
    return import_model(load_model(source)[0], input_shapes=shapes)


def reference(source: Source) -> ort.InferenceSession:
    """onnxruntime on the original file, optimisations off."""
    return session(onnx.load(source) if isinstance(source, Path) else source)


def feed(
    model: Imported, style: str = "normal", seed: int = 0, batch: int | None = None
) -> dict[str, np.ndarray]:
    """Random inputs; ``batch`` samples of them where the batch is dynamic."""
    drawn = draw(model.specs, style, (seed,))
    if batch is None or model.batch.fixed is not None:
        return drawn
    axes = model.batch.axes
    return {
        n: np.take(x, np.arange(batch), axes[n], mode="wrap") if n in axes else x for n, x in drawn.items()
    }


def run(model: Imported, feeds: Mapping[str, np.ndarray]) -> list[torch.Tensor]:
    """The module's outputs, always as a list."""
    out = model.module(*(to_tensor(feeds[v.name], v.name) for v in model.graph.inputs))
    return [out] if isinstance(out, torch.Tensor) else list(out)


def apart(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], floor: float = 0.0) -> float:
    """Largest max|a - b| / max(max|b|, floor) over the outputs. Raises AssertionError where shapes differ."""
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape, (a.shape, b.shape)
        scale = max(float(np.abs(b).max(initial=0)), floor, np.finfo(np.float32).tiny)
        worst = max(worst, float(np.abs(np.subtract(a, b, dtype=np.float64)).max(initial=0)) / scale)
    return worst


def difference(model: Imported, source: Source, batch: int | None = None) -> float:
    """How far the module is from onnxruntime on random inputs.

    Detectors see nothing in noise: their scores of 1e-7 are all rounding. So the kind of input counts on
    which onnxruntime itself moves least when every entry goes to a neighbouring float.
    """
    runtime = reference(source)
    tried = []
    for style in ("normal", "byte", "unit"):
        feeds = feed(model, style, batch=batch)
        wanted = runtime.run(None, feeds)
        noise = apart(runtime.run(None, nudged(feeds)), wanted)
        tried.append((noise, style, feeds, wanted))
        if noise <= TOLERANCE / 5:
            break
    _, _, feeds, wanted = min(tried, key=lambda entry: entry[:2])
    with torch.no_grad():
        return apart([t.numpy() for t in run(model, feeds)], wanted, floor=1e-2)


def nudged(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every float moved to one of the floats beside it."""
    rng = np.random.default_rng(0)
    return {
        n: np.nextafter(x, rng.choice(np.array([-1e30, 1e30], x.dtype), x.shape))
        if x.dtype == np.float32
        else x
        for n, x in feeds.items()
    }
