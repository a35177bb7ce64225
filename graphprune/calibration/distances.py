"""How far a model's outputs are from the original's: divergence of classes, relative squares of everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Outputs = Mapping[str, np.ndarray]


def output_distance(wanted: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    """Mean over outputs: KL(original || found) of ``[n, classes]`` logits in nats; squared error over variance."""
    names = [n for n, a in wanted[0].items() if a.dtype.kind == "f"]
    distances = []
    for name in names:
        a = np.concatenate([np.asarray(w[name], np.float64) for w in wanted])
        b = np.concatenate([np.asarray(f[name], np.float64) for f in found])
        distances.append(_classes(a, b) if a.ndim == 2 and a.shape[1] > 1 else _relative(a, b))
    return float(np.mean(distances)) if distances else 0.0


def _classes(a: np.ndarray, b: np.ndarray) -> float:
    p, q = _log_softmax(a), _log_softmax(b)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    spread = float(np.square(a - a.mean()).mean())
    return float(np.square(a - b).mean()) / max(spread, 1e-30)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
