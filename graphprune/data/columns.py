"""Named arrays of equal length as samples: which array feeds which graph input, and where labels are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.data.fitting import Fit, Normalisation, fit, is_number, native, pictures
from graphprune.data.samples import Batch, InputSpec
from graphprune.data.storage import Header
from graphprune.errors import DataError

LABELS = "labels"
CONSTANTS = ("mean", "std")
_BYTES = "_u8"
"""``NAME_u8`` holds the input NAME as bytes."""


@dataclass(frozen=True)
class Columns:
    """How a table of arrays is read.

    arrays: per graph input the array that feeds it. labels: what the array of labels is; None without.
    """

    samples: int
    arrays: tuple[str, ...]
    fits: tuple[Fit, ...]
    labels: Header | None

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Every array that is read."""
        return (*self.arrays, LABELS) if self.labelled else self.arrays

    def shape(self) -> dict[str, tuple[int, ...]]:
        """Graph input -> shape of a sample."""
        return {f.spec.name: f.sample for f in self.fits}

    def batch(self, rows: Mapping[str, np.ndarray], indices: np.ndarray) -> Batch:
        """Array -> the rows of a batch ``[n, ...]``, as stored."""
        inputs = tuple(f.array(rows[name]) for name, f in zip(self.arrays, self.fits, strict=True))
        labels = to_labels(native(rows[LABELS])) if self.labelled else None
        return Batch(inputs, labels, indices)


def columns(
    headers: Mapping[str, Header],
    inputs: Sequence[InputSpec],
    normalisation: Normalisation | None,
    where: str,
) -> Columns:
    """Match stored arrays with graph inputs; ``where`` is the file. Raises DataError, OptionError."""
    arrays = match(headers, inputs, where)
    used = {name: headers[name] for name in arrays}
    if LABELS in headers and LABELS not in arrays:
        used[LABELS] = headers[LABELS]
        if not is_number(headers[LABELS].dtype.name):
            raise DataError(
                f"'{LABELS}' in {where} holds {headers[LABELS].dtype.name}: store class numbers, or floats"
            )
    counts = {}
    for name, header in used.items():
        if not header.shape:
            raise DataError(
                f"array {name!r} in {where} is a single number: its first axis must count samples"
            )
        counts[name] = header.shape[0]
    samples = min(counts.values())
    if max(counts.values()) != samples:
        text = ", ".join(f"{n} of {name!r}" for name, n in counts.items())
        raise DataError(f"the counts of samples in {where} differ ({text}): store as many of each")
    if not samples:
        raise DataError(f"{where} holds no samples: give data that is not empty")
    normalised = pictures(inputs)
    fits = tuple(
        fit(
            spec,
            headers[name].shape,
            headers[name].dtype.name,
            normalisation if spec.name in normalised else None,
            f"array {name!r} in {where}",
        )
        for spec, name in zip(inputs, arrays, strict=True)
    )
    return Columns(samples, arrays, fits, used.get(LABELS))


def match(names: Iterable[str], inputs: Sequence[InputSpec], where: str) -> tuple[str, ...]:
    """Per graph input the name of its array: the same one, or NAME_u8, or whatever the only array is called.

    Raises DataError.
    """
    known = list(names)
    found = [next((n for n in (s.name, s.name + _BYTES) if n in known), None) for s in inputs]
    others = [n for n in known if n != LABELS and n not in CONSTANTS]
    if found == [None] and len(others) == 1:
        return (others[0],)
    missing = [s.name for s, name in zip(inputs, found, strict=True) if name is None]
    if missing:
        near = difflib.get_close_matches(missing[0], others, 1)
        hint = f"rename {near[0]!r}" if near else "name the arrays like the model's inputs"
        raise DataError(
            f"{where} has no array {missing[0]!r} (it has {', '.join(map(repr, known)) or 'none'}): {hint}"
        )
    return tuple(name for name in found if name is not None)


def to_labels(values: np.ndarray) -> np.ndarray:
    """Integers as int64 (a second axis of size 1 is dropped), floats as float32."""
    if values.dtype.kind not in "biu":
        return values.astype(np.float32, copy=False)
    values = values.astype(np.int64, copy=False)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
