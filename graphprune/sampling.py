"""Inputs for a comparison, with what the model that is the measure computes on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphprune.errors import ModelError
from graphprune.feeds import STYLES, InputSpec, draw
from graphprune.running import Feed, Results, first_line


def sample(
    run: Callable[[Feed], Results], specs: Sequence[InputSpec], runs: int, seed: int, first: int = 0
) -> tuple[list[Feed], list[Results]]:
    """Per run the first of STYLES (starting from another one each time) with finite results.

    Runs are numbered from ``first``; the number decides what is drawn.
    Where no style has finite results, the first that ``run`` accepts counts. Raises the error of ``run``
    where it accepts none.
    """
    feeds: list[Feed] = []
    results: list[Results] = []
    failure: Exception | None = None
    for number in range(first, first + runs):
        accepted: tuple[Feed, Results] | None = None
        for style in _styles(number):
            feed = draw(specs, style, [seed, number])
            try:
                found = run(feed)
            except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
                failure = failure or error
                continue
            finite = all(np.isfinite(a).all() for a in found.values() if a.dtype.kind == "f")
            if accepted is None or finite:
                accepted = feed, found
            if finite:
                break
        if accepted is not None:
            feeds.append(accepted[0])
            results.append(accepted[1])
    if not feeds:
        raise failure or ValueError("it has no outputs")
    return feeds, results


def sample_sizes(
    run: Callable[[Feed], Results],
    others: Sequence[Sequence[InputSpec]],
    analysed: Sequence[InputSpec],
    runs: int,
    seed: int,
) -> tuple[list[Feed], list[Results]]:
    """``sample`` at two sizes: those that were analysed come last.

    The first of ``others`` that ``run`` accepts is drawn ``runs - 1`` times (at least twice, to show that results
    depend on the data), ``analysed`` once; where it accepts none of them, ``analysed`` every time. Raises the error
    of ``run`` where it accepts nothing.
    """
    for specs in others:
        try:
            feeds, results = sample(run, specs, max(runs - 1, 2), seed)
        except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
            continue
        try:
            more = sample(run, analysed, 1, seed, first=len(feeds))
        except Exception:  # noqa: BLE001
            return feeds, results
        return feeds + more[0], results + more[1]
    return sample(run, analysed, runs, seed)


def cannot_run(error: Exception) -> ModelError:
    """The error of a user whose original onnxruntime refuses."""
    return ModelError(
        f"onnxruntime cannot run the original: {first_line(error)}; "
        "give sizes with --input-shape, or check that the model runs"
    )


def _styles(number: int) -> tuple[str, ...]:
    ranges = STYLES[:-1]
    start = number % len(ranges)
    return (*ranges[start:], *ranges[:start], STYLES[-1])
