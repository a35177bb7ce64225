"""Rule ``nm``: at most N non-zeros in every M consecutive weights, as the target reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from graphprune.targets.claims import Claims
from graphprune.targets.findings import FAIL, Finding, runs_dense_note
from graphprune.targets.grouping import crowded_groups
from graphprune.targets.target import Target
from graphprune.targets.weights import ReadWeight, runs_dense

_AXIS = {"output": 1, "input": 2}
"""Of ``ReadWeight.nonzero``."""

MANY, NEARLY_FULL = 32, 0.75
"""Groups, and share of the non-zeros that N:M allows, from which a pattern is meant. Scattered zeros of that
density fit 2:4 in 32 groups less than once in 100; where most weights are zero, they do it by chance."""


def nm_findings(weights: Iterable[ReadWeight], claims: Claims, target: Target) -> Iterator[Finding]:
    """For every weight that the target could run sparse, whether all its groups of M fit.

    Groups run along ``target.nm_axis`` inside one conv group, for every kernel position by itself: what the
    TensorRT documentation asks of ``[K, C, R, S]``. A short last group is filled with zeros. A weight that
    does not fit fails where the file says that it is pruned so, or where its numbers do: N:M holds along
    another axis, or in row-major order. Otherwise it runs dense, which is a note.
    """
    if target.nm_sizes is None:
        return
    keep, of = target.nm_sizes
    wrong = f"more than {target.nm} along the {target.nm_axis}s"
    for weight in weights:
        reason = runs_dense(weight, target)
        if reason:
            yield runs_dense_note("nm", weight.name, reason)
            continue
        crowded, groups = crowded_groups(weight.nonzero, _AXIS[target.nm_axis], keep, of)
        if not crowded:
            continue
        counted = f"{crowded} of {groups} groups"
        other = _other_reading(weight, target, keep, of)
        if other is None and weight.name not in claims.rows:
            yield runs_dense_note("nm", weight.name, wrong, counted)
        else:
            sentence = wrong if other is None else f"{wrong}: {target.nm} holds {other} instead"
            advice = f"prune with --structure nm --nm {target.nm} --nm-axis {target.nm_axis}"
            yield Finding(FAIL, "nm", weight.name, sentence, counted, advice)


def _other_reading(weight: ReadWeight, target: Target, keep: int, of: int) -> str | None:
    """Another way to read the weight in which N:M holds, which no dense weight does by chance."""
    for name, axis in _AXIS.items():
        if name != target.nm_axis and _holds(weight.nonzero, axis, keep, of):
            return f"along the {name}s"
    if _holds(weight.flat, 0, keep, of):
        return "over the stored numbers in row-major order"
    return None


def _holds(nonzero: np.ndarray, axis: int, keep: int, of: int) -> bool:
    """Whether all groups fit, which many whole groups as full as N:M allows do not by chance."""
    length = nonzero.shape[axis]
    whole = nonzero.size // length * (length // of)
    if whole < MANY or nonzero.mean() < NEARLY_FULL * keep / of:
        return False
    return not crowded_groups(nonzero, axis, keep, of)[0]
